package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"strconv"
)

// Metadata of a page that is to be found by the tokens before it. All are optional.
const (
	MetaPrefix      = "prefix"       // the link at token_first, 64 hexadecimal digits; not needed where token_first is 0
	MetaPrefixBlock = "prefix_block" // tokens of a block; default DefaultBlock
	MetaPrefixSalt  = "prefix_salt"  // whatever else the keys depend on: an adapter, images
)

// DefaultBlock is the tokens of a block that the engines use unless they are told otherwise.
const DefaultBlock = 16

const maxBlock = 4096

// Link names a prefix: every token from the start of a sequence to the end of a block. Two sequences have a link in
// common exactly when they begin with the same tokens, in blocks of the same size, under the same salt.
type Link [sha256.Size]byte

// RootLink is the link before the first token: SHA-256 of "semproxy.prefix.v1", the tokens of a block, and the salt; each
// text is preceded by its length and each number is 8 bytes, little-endian.
func RootLink(block int, salt string) Link {
	h := sha256.New()
	hashString(h, "semproxy.prefix.v1")
	hashNumbers(h, block)
	hashString(h, salt)
	return Link(h.Sum(nil))
}

// Next is the link behind one more block: SHA-256 of this link and the block's token ids, 4 bytes each, little-endian.
// ids(i) is token i of the block.
func (l Link) Next(block int, ids func(i int) int64) Link {
	buf := make([]byte, len(l), len(l)+4*block)
	copy(buf, l[:])
	for i := range block {
		buf = binary.LittleEndian.AppendUint32(buf, uint32(ids(i)))
	}
	return sha256.Sum256(buf)
}

// String is the link as it is written in metadata.
func (l Link) String() string { return hex.EncodeToString(l[:]) }

func parseLink(text string) (l Link, ok bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(l) || hex.EncodeToString(b) != text {
		return l, false
	}
	return Link(b), true
}

// Span is where a page lies in the chain of its sequence's links.
type Span struct{ From, To Link }

// Span finds the links at both ends of the page. ok is false for a page that cannot be found by its prefix: it does not
// begin and end at blocks, or it does not say what is before it.
func (p *Page) Span() (s Span, ok bool, err error) {
	block := DefaultBlock
	if text, there := p.Extra[MetaPrefixBlock]; there {
		if block, err = strconv.Atoi(text); err != nil || block < 1 || block > maxBlock {
			return s, false, refuse(CodeBadPrefix, `metadata "prefix_block"`, quote(text), "1 to 4096")
		}
	}
	text, there := p.Extra[MetaPrefix]
	if there {
		if s.From, ok = parseLink(text); !ok {
			return s, false, refuse(CodeBadPrefix, `metadata "prefix"`, quote(text), "64 lower-case hexadecimal digits")
		}
	}
	root := RootLink(block, p.Extra[MetaPrefixSalt])
	switch {
	case p.TokenFirst == 0 && there && s.From != root:
		return s, false, refuse(CodeBadPrefix, `metadata "prefix" of a page that begins at token 0`, quote(text), root)
	case p.TokenFirst == 0:
		s.From = root
	case !there:
		return s, false, nil
	}
	if p.TokenFirst%block != 0 || p.Tokens%block != 0 {
		return s, false, nil
	}
	s.To = s.From
	for at := 0; at < p.Tokens; at += block {
		s.To = s.To.Next(block, func(i int) int64 { return p.TokenIDs.At(at + i) })
	}
	return s, true, nil
}

// Space is a digest of all that keys and values depend on beside the tokens: model, layout, rope, element type, heads.
// Pages of two spaces never replace each other.
func (p *Page) Space() [sha256.Size]byte {
	h := sha256.New()
	for _, s := range []string{"semproxy.prefix.space.v1", p.Model, p.Layout, p.Rope.json(), p.DType.String()} {
		hashString(h, s)
	}
	hashNumbers(h, p.KVHeads, p.HeadDim)
	return [sha256.Size]byte(h.Sum(nil))
}

// PrefixRequest asks for the longest stored prefix of a sequence, as JSON in the body of kv.v1.get. Its fields are
// those of the pages that would be sent.
type PrefixRequest struct {
	Model       string          `json:"model"`
	Layout      string          `json:"layout"`
	DType       string          `json:"dtype"`
	Rope        json.RawMessage `json:"rope"` // as in a page's metadata
	Layers      int             `json:"layers"`
	KVHeads     int             `json:"kv_heads"`
	HeadDim     int             `json:"head_dim"`
	TokensTotal int             `json:"tokens_total,omitempty"` // of the sequence, for the policy; default: the tokens given
	Block       int             `json:"prefix_block,omitempty"` // default DefaultBlock
	Salt        string          `json:"prefix_salt,omitempty"`
	TokenIDs    []int32         `json:"token_ids"`

	Sequence string            `json:"sequence,omitempty"` // name that the pages of the request would have
	Headers  map[string]string `json:"headers,omitempty"`  // as in a page's metadata

	space [sha256.Size]byte
}

// DecodePrefixRequest reads and checks a request.
func DecodePrefixRequest(body []byte, lim Limits) (*PrefixRequest, error) {
	lim = lim.orDefaults()
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	r := &PrefixRequest{}
	if err := in.Decode(r); err != nil {
		return nil, refuse(CodeBadPrefix, "prefix request", quote(err.Error()), "the JSON of docs/reference/page-plane.md")
	}
	if _, err := in.Token(); err != io.EOF { //nolint:errorlint // the decoder returns it as it is
		return nil, refuse(CodeBadPrefix, "prefix request", "more than one value", "one JSON object")
	}
	if r.Block == 0 {
		r.Block = DefaultBlock
	}
	if r.TokensTotal == 0 {
		r.TokensTotal = len(r.TokenIDs)
	}
	for _, f := range []struct {
		name             string
		got, least, most int
	}{
		{"layers", r.Layers, 1, lim.MaxLayers}, {"kv_heads", r.KVHeads, 1, lim.MaxHeads}, {"head_dim", r.HeadDim, 1, lim.MaxHeadDim},
		{"prefix_block", r.Block, 1, maxBlock}, {"token_ids", len(r.TokenIDs), 1, lim.MaxTokens}, {"tokens_total", r.TokensTotal, len(r.TokenIDs), 1<<31 - 1},
		{"model", len(r.Model), 1, maxIDBytes}, {"layout", len(r.Layout), 1, maxIDBytes}, {"prefix_salt", len(r.Salt), 0, maxValueBytes},
		{"sequence", len(r.Sequence), 0, maxIDBytes}, {"headers", len(r.Headers), 0, maxHeaders},
	} {
		if f.got < f.least || f.got > f.most {
			return nil, refuse(CodeBadPrefix, "prefix request: "+f.name, f.got, strconv.Itoa(f.least)+" to "+strconv.Itoa(f.most))
		}
	}
	for i, id := range r.TokenIDs {
		if id < 0 {
			return nil, refuse(CodeBadPrefix, "prefix request: token_ids["+strconv.Itoa(i)+"]", id, "0 to 2147483647")
		}
	}
	like := Page{Model: r.Model, Layout: r.Layout, KVHeads: r.KVHeads, HeadDim: r.HeadDim}
	var err error
	if like.DType, err = ParseDType(r.DType); err != nil {
		return nil, err
	}
	if like.Rope, err = parseRope(string(r.Rope), r.HeadDim); err != nil {
		return nil, err
	}
	r.space = like.Space()
	return r, nil
}

// Space is that of the pages that are asked for.
func (r *PrefixRequest) Space() [sha256.Size]byte { return r.space }

// Places is the number of links: at the start and behind each whole block.
func (r *PrefixRequest) Places() int { return 1 + len(r.TokenIDs)/r.Block }

// Link is the link behind n blocks, n in [0, Places()), before being that behind n-1 of them. A chain of a million links costs
// a second: nobody should compute more of it than is asked for.
func (r *PrefixRequest) Link(n int, before Link) Link {
	if n == 0 {
		return RootLink(r.Block, r.Salt)
	}
	at := (n - 1) * r.Block
	return before.Next(r.Block, func(i int) int64 { return int64(r.TokenIDs[at+i]) })
}

// PrefixReply answers a PrefixRequest. The pages cover the first Tokens tokens of the sequence in every layer that was
// asked for, in the order of tokens, then layers; Tokens is 0 where nothing is stored.
type PrefixReply struct {
	Tokens int            `json:"tokens"`
	Pages  []PrefixedPage `json:"pages"`
}

// PrefixedPage is a stored object and what it stands for.
type PrefixedPage struct {
	Object     string `json:"object"` // to get it by
	TokenFirst int    `json:"token_first"`
	Tokens     int    `json:"tokens"`
	LayerFirst int    `json:"layer_first"`
	Layers     int    `json:"layers"`
}
