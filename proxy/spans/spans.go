package spans

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/semproxy/semproxy/proxy/dialect"
)

// Span is the range of tokens [from, to) of a prompt.
type Span [2]int

// Found is where protected messages lie.
type Found struct {
	Spans  []Span // sorted, apart from each other; none: no message has one of the roles
	Tokens int    // of the whole prompt, as /tokenize counts; 0 when it was not asked
}

// Outcome is the stable name of how a search ended.
type Outcome string

// Outcomes.
const (
	OutcomeFound       Outcome = "found"
	OutcomeNone        Outcome = "none"        // no message has one of the roles: nothing is to be protected
	OutcomeUnsupported Outcome = "unsupported" // not a chat of text, or the prompt depends on more than /tokenize takes
	OutcomeUnstable    Outcome = "unstable"    // the template renders a message otherwise when others follow
	OutcomeTooMany     Outcome = "too_many"    // places to find
	OutcomeUnavailable Outcome = "unavailable" // the engine's /tokenize failed, or took too long
	OutcomeDistrusted  Outcome = "distrusted"  // the engine counted other tokens than its /tokenize not long ago
)

// Error says why the tokens are not known.
type Error struct {
	Outcome Outcome
	Why     string
}

func (e *Error) Error() string { return e.Why }

// OutcomeOf names how a search ended.
func OutcomeOf(f Found, err error) Outcome {
	var known *Error
	switch {
	case errors.As(err, &known):
		return known.Outcome
	case err != nil:
		return OutcomeUnavailable
	case len(f.Spans) == 0:
		return OutcomeNone
	}
	return OutcomeFound
}

// maxPlaces bounds the places of one prompt: each costs a question to the engine, until it is remembered.
const maxPlaces = 64

// part is a beginning of a chat: how many tokens it has, and their digest.
type part struct {
	tokens int
	sum    [sha256.Size]byte
}

// Find looks for the messages of roles in a tenant's chat. What is remembered is the tenant's own: the time that a search takes
// tells nobody what others have sent. The error is an *Error.
func (f *Finder) Find(ctx context.Context, tenant string, chat *dialect.Chat, roles []string) (Found, error) {
	runs := runsOf(chat, roles)
	if len(runs) == 0 {
		return Found{}, nil
	}
	if 2*len(runs) > maxPlaces {
		return Found{}, &Error{OutcomeTooMany, fmt.Sprintf("the chat has %d runs of such messages, more than %d", len(runs), maxPlaces/2)}
	}
	if f.distrusts(chat.Model) {
		return Found{}, &Error{OutcomeDistrusted, "the engine has counted other tokens for this model than its /tokenize"}
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	whole, err := f.tokenize(ctx, chat.Text(len(chat.Messages), true))
	if err != nil {
		return Found{}, err
	}
	h, hashed := sha256.New(), 0
	place := func(messages int) (int, error) {
		if messages == 0 {
			return 0, nil
		}
		text := chat.Text(messages, false)
		key := sha256.Sum256(append([]byte(tenant+"\x00"), text...))
		p, err := f.part(ctx, key, text)
		if err != nil {
			return 0, err
		}
		unstable := &Error{OutcomeUnstable, fmt.Sprintf("the first %d messages alone are other tokens than within the prompt", messages)}
		if p.tokens < hashed || p.tokens > len(whole) {
			f.parts.drop(key) // it may be of the engine's last model
			return 0, unstable
		}
		writeTokens(h, whole[hashed:p.tokens])
		if hashed = p.tokens; [sha256.Size]byte(h.Sum(nil)) != p.sum {
			f.parts.drop(key)
			return 0, unstable
		}
		return p.tokens, nil
	}
	found := Found{Tokens: len(whole)}
	for _, run := range runs {
		from, err := place(run[0])
		if err != nil {
			return Found{}, err
		}
		to, err := place(run[1])
		if err != nil {
			return Found{}, err
		}
		if err := f.holds(ctx, tenant, chat, run, whole[from:to]); err != nil {
			return Found{}, err
		}
		found.Spans = append(found.Spans, Span{from, to})
	}
	return found, nil
}

// holds says whether the tokens are what a run of messages says.
func (f *Finder) holds(ctx context.Context, tenant string, chat *dialect.Chat, run Span, tokens []int32) error {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\x00%s\x00%d\x00", tenant, chat.Model, len(tokens))
	writeTokens(h, tokens)
	for _, m := range chat.Messages[run[0]:run[1]] {
		_, _ = fmt.Fprintf(h, "%d\x00%s", len(m.JSON), m.JSON)
	}
	key := [sha256.Size]byte(h.Sum(nil))
	if _, ok := f.parts.get(key); ok {
		return nil
	}
	text := ""
	if len(tokens) > 0 {
		var err error
		if text, err = f.detokenize(ctx, chat.Model, tokens); err != nil {
			return err
		}
	}
	for i, m := range chat.Messages[run[0]:run[1]] {
		for _, part := range m.Texts {
			_, after, ok := strings.Cut(text, strings.TrimSpace(part))
			if !ok {
				return &Error{OutcomeUnstable, fmt.Sprintf("message %d is not rendered in its place, or with other characters", run[0]+i)}
			}
			text = after
		}
	}
	f.parts.put(key, part{})
	return nil
}

// runsOf are the ranges of messages that have one of the roles and follow each other.
func runsOf(chat *dialect.Chat, roles []string) (runs []Span) {
	for i, m := range chat.Messages {
		if !slices.Contains(roles, m.Role) {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1][1] == i {
			runs[n-1][1] = i + 1
			continue
		}
		runs = append(runs, Span{i, i + 1})
	}
	return runs
}

// part is what a beginning of a chat is by itself.
func (f *Finder) part(ctx context.Context, key [sha256.Size]byte, text []byte) (part, error) {
	if p, ok := f.parts.get(key); ok {
		return p, nil
	}
	tokens, err := f.tokenize(ctx, text)
	if err != nil {
		return part{}, err
	}
	h := sha256.New()
	writeTokens(h, tokens)
	p := part{len(tokens), [sha256.Size]byte(h.Sum(nil))}
	f.parts.put(key, p)
	return p, nil
}

func writeTokens(h interface{ Write([]byte) (int, error) }, tokens []int32) {
	var b [256]byte
	for len(tokens) > 0 {
		n := min(len(tokens), len(b)/4)
		for i, t := range tokens[:n] {
			binary.LittleEndian.PutUint32(b[4*i:], uint32(t))
		}
		_, _ = h.Write(b[:4*n]) // a hash never fails
		tokens = tokens[n:]
	}
}
