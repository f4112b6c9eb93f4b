package gate

// Prompt is what a prompt is made of, as far as its length in tokens can be told from it. Media are how many there are of each kind
// of what is no text: pictures, sounds, films, files.
type Prompt struct {
	Bytes  int // of text
	Tokens int // given as numbers
	Media  [4]int
}

// mediaTokens is what one of each kind is taken for until answers have said better.
var mediaTokens = [4]float64{1024, 1536, 4096, 2048}

// Bounds of what is learnt: the tenants and models told apart, the bytes that one answer may weigh, the tokens of one picture.
const (
	maxRates     = 4096
	mostBytes    = 64 << 10
	mostPerMedia = 100_000
)

// rates are the lengths that a tenant's prompts to a model have had. They are kept by tenant: what one sends changes no other's.
type rates struct {
	bytes, tokens float64 // of texts, sums that forget
	media         [4]average
	used          uint64
}

type ratesKey struct{ tenant, model string }

// perByte is a quarter until answers have said better.
func (r *rates) perByte() float64 {
	const prior = 512
	return (r.tokens + prior/4) / (r.bytes + prior)
}

func (r *rates) estimate(p Prompt) float64 {
	sum := r.perByte()*float64(p.Bytes) + float64(p.Tokens)
	for i, n := range p.Media {
		if n > 0 {
			sum += float64(n) * r.media[i].or(mediaTokens[i])
		}
	}
	return sum
}

// learn takes what an engine has counted for a prompt. Only a prompt of text teaches what text is, and only one with a single
// other kind what that kind is.
func (r *rates) learn(p Prompt, tokens int) {
	kinds, kind := 0, 0
	for i, n := range p.Media {
		if n > 0 {
			kinds, kind = kinds+1, i
		}
	}
	switch {
	case kinds == 0 && p.Tokens == 0 && p.Bytes > 0:
		weight := min(1, float64(mostBytes)/float64(p.Bytes))
		r.bytes = r.bytes*(1-forget) + weight*float64(p.Bytes)
		r.tokens = r.tokens*(1-forget) + weight*min(float64(tokens), 4*float64(p.Bytes)+64)
	case kinds == 1:
		rest := float64(tokens) - r.perByte()*float64(p.Bytes) - float64(p.Tokens)
		r.media[kind].add(min(max(rest/float64(p.Media[kind]), 1), mostPerMedia))
	}
}

// Estimate is about how many tokens a prompt has. It asks for nothing to be remembered, so that names which no engine knows
// displace none.
func (g *Gate) Estimate(tenant, model string, p Prompt) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.rates[ratesKey{tenant, model}]
	if r == nil {
		r = &rates{}
	}
	return int(r.estimate(p) + 0.5)
}

// learnRates finds or makes an entry and teaches it; g.mu is held.
func (g *Gate) learnRates(tenant, model string, p Prompt, tokens int) {
	key := ratesKey{tenant, model}
	r := g.rates[key]
	if r == nil {
		if len(g.rates) >= maxRates {
			var oldest ratesKey
			least := g.used + 1
			for k, one := range g.rates {
				if one.used < least {
					oldest, least = k, one.used
				}
			}
			delete(g.rates, oldest)
		}
		r = &rates{}
		g.rates[key] = r
	}
	r.used = g.used
	r.learn(p, tokens)
}
