package dialect

import (
	"bytes"

	"github.com/semproxy/semproxy/codes"
)

// Kinds of what a prompt holds besides text.
const (
	Image = iota
	Audio
	Video
	File
	Kinds // how many there are
)

// Prompt is what a prompt is made of: what its length in tokens can be told from before an engine has counted it. Pictures,
// sounds and files have a length that their bytes do not tell.
type Prompt struct {
	Bytes   int        // of its texts: messages, prompt, input or inputs, with system and tools
	Tokens  int        // given as numbers
	Media   [Kinds]int // of each kind, how many
	Several int        // prompts in one request; 0 and 1: one
}

// Text says whether a prompt is of text alone.
func (p *Prompt) Text() bool { return p.Media == [Kinds]int{} && p.Tokens == 0 }

// Exact says whether a prompt's tokens are known without counting.
func (p *Prompt) Exact() bool { return p.Media == [Kinds]int{} && p.Tokens > 0 && p.Bytes == 0 }

// mediaNames are members of messages and their parts whose values are no text.
var mediaNames = map[string]place{
	"image_url": media + Image, "input_image": media + Image, "image": media + Image, "images": media + Image, "image_embeds": media + Image, "image_pil": media + Image,
	"audio_url": media + Audio, "input_audio": media + Audio, "audio": media + Audio, "audios": media + Audio, "audio_embeds": media + Audio,
	"video_url": media + Video, "input_video": media + Video, "video": media + Video, "videos": media + Video,
	"file": media + File, "input_file": media + File, "file_data": media + File, "file_url": media + File, "prompt_embeds": media + File,
	"source": source, "data": source, "result": source, "b64_json": media + Image, // of a picture that was made
}

// value is part of visitor.
func (q *Reader) value(at place, element bool, kind byte) place {
	p := &q.r.Prompt
	switch {
	case at >= media && at <= lastMedia && kind == '[':
		return at
	case at >= media && at <= lastMedia:
		if kind != 'n' {
			p.Media[at-media]++
		}
		return inside
	case at == chats && element && kind == '[': // one conversation of several
		p.Several++
		return words
	case at == chats && element:
		return words
	case at == prompts && element && kind == '{': // an item of one prompt, such as a message
		return words
	case at == prompts && element && (kind == '"' || kind == '['):
		p.Several++
		return prompt
	case at == settings && kind != '{' && kind != 'n':
		q.bad = &Error{400, codes.RequestBadMember, "the member parameters must be an object"}
	}
	return at
}

// text is part of visitor.
func (q *Reader) text(at place, quoted bool, length int, begins []byte) {
	p := &q.r.Prompt
	switch {
	case at == source && quoted && encoded(begins):
		p.Media[Image]++
	case at == words || at == literal || at == source || at == chats || quoted && (at == prompts || at == prompt):
		p.Bytes += length
	case (at == prompts || at == prompt) && begins[0] != 'n':
		p.Tokens++
	}
}

// leastEncoded is the length from which on a text without any space is taken for bytes as base64.
const leastEncoded = 64

// encoded says whether a text that may be one, by its first bytes, is rather a picture or another file: a URL or base64.
func encoded(begins []byte) bool {
	for _, scheme := range []string{"data:", "http:", "https:"} {
		if bytes.HasPrefix(begins, []byte(scheme)) {
			return true
		}
	}
	if len(begins) < leastEncoded {
		return false
	}
	for _, b := range begins {
		if (b < '0' || b > '9') && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && b != '+' && b != '/' && b != '-' && b != '_' && b != '=' {
			return false
		}
	}
	return true
}

// linkMatcher finds the pictures that TGI's prompts hold in the middle of the text, as ![](data:...), however it is cut.
type linkMatcher struct {
	at    int // of opening, that has been found
	in    bool
	bytes int // of all links
	count int
}

const opening = "](data:"

func (l *linkMatcher) write(p []byte) {
	for len(p) > 0 {
		if l.in {
			end := bytes.IndexAny(p, ") ")
			if end < 0 {
				l.bytes += len(p)
				return
			}
			l.bytes, l.in, p = l.bytes+end, false, p[end:]
			continue
		}
		if l.at == 0 {
			i := bytes.IndexByte(p, opening[0])
			if i < 0 {
				return
			}
			p = p[i:]
		}
		if p[0] != opening[l.at] {
			l.at = 0
			if p[0] != opening[0] {
				p = p[1:]
			}
			continue
		}
		p = p[1:]
		if l.at++; l.at == len(opening) {
			l.at, l.in = 0, true
			l.count++
		}
	}
}
