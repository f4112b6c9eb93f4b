package dialect

import (
	"bytes"
	"errors"
)

// Chat is what a prompt is rendered from by the model's chat template. It borrows the request's body.
type Chat struct {
	Model    string
	Messages []Message
	// Members are those that change how the template renders and that /tokenize of an engine takes, too: tools and the like.
	Members []Member
}

// Message is one of a chat.
type Message struct {
	Role  string
	Texts []string // of its content: one, or one for each part
	JSON  []byte   // the whole message, as it was sent
}

// Member is a member of an object, as it was sent.
type Member struct {
	Name string
	JSON []byte
}

var (
	rendering = [...]string{"tools", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "add_special_tokens"}
	// unrendered change the prompt, and /tokenize does not know them.
	unrendered = [...]string{"documents", "reasoning_effort", "truncate_prompt_tokens", "mm_processor_kwargs"}
)

// Reasons why a prompt's tokens cannot be told apart.
var (
	ErrNotChat    = errors.New("the request is no chat of messages")
	ErrNotText    = errors.New("a message holds something else than text")
	ErrNotVisible = errors.New("the prompt depends on more than the engine's /tokenize takes")
)

// Chat reads the messages of a request; it is called before Rewrite, and copies the body. The error is one of the reasons above.
func (r *Request) Chat() (*Chat, error) {
	if r.route.Pattern != "/v1/chat/completions" {
		return nil, ErrNotChat
	}
	object, err := ParseObject(append(bytes.Join(r.body.pieces, nil), '}'))
	if err != nil {
		return nil, ErrNotChat
	}
	value, ok := object.Get("messages")
	if !ok {
		return nil, ErrNotChat
	}
	c := &Chat{Model: r.Model}
	for _, name := range unrendered {
		if value, ok := object.Get(name); ok && string(value) != "null" {
			return nil, ErrNotVisible
		}
	}
	for _, name := range rendering {
		switch value, ok := object.Get(name); {
		case object.Count(name) > 1:
			return nil, ErrNotVisible
		case ok && string(value) != "null":
			c.Members = append(c.Members, Member{name, value})
		}
	}
	if choice, ok := object.Get("tool_choice"); ok && string(choice) == `"none"` {
		return nil, ErrNotVisible // some engines leave the tools out then
	}
	list, ok := elements(value)
	if !ok || len(list) > maxMembers {
		return nil, ErrNotChat
	}
	for _, text := range list {
		message, err := ParseObject(text)
		if err != nil || message.Count("role") != 1 || message.Count("content") > 1 {
			return nil, ErrNotChat
		}
		role, _ := message.Get("role")
		m := Message{JSON: text}
		if m.Role, err = decodeText(role); err != nil {
			return nil, ErrNotChat
		}
		if content, ok := message.Get("content"); ok {
			if m.Texts, ok = texts(content); !ok {
				return nil, ErrNotText
			}
		}
		c.Messages = append(c.Messages, m)
	}
	return c, nil
}

// texts are those of a message's content: a string, nothing, or parts that all are text; false for any other.
func texts(content []byte) ([]string, bool) {
	if string(content) == "null" {
		return nil, true
	}
	if content[0] == '"' {
		text, err := decodeText(content)
		return []string{text}, err == nil
	}
	parts, ok := elements(content)
	if !ok {
		return nil, false
	}
	out := make([]string, 0, len(parts))
	for _, part := range parts {
		object, err := ParseObject(part)
		if err != nil || object.Count("type") != 1 || object.Count("text") != 1 {
			return nil, false
		}
		kind, _ := object.Get("type")
		value, _ := object.Get("text")
		text, err := decodeText(value)
		if err != nil || string(kind) != `"text"` {
			return nil, false
		}
		out = append(out, text)
	}
	return out, true
}

// elements takes a list apart; the text is a value of valid JSON.
func elements(value []byte) (list [][]byte, ok bool) {
	if len(value) == 0 || value[0] != '[' {
		return nil, false
	}
	s := scanner{text: value, at: 1}
	for {
		s.space()
		switch s.text[s.at] {
		case ']':
			return list, true
		case ',':
			s.at++
			continue
		}
		list = append(list, s.value())
	}
}

// Text is the chat of the first n messages, as a request for /tokenize. The prompt is rendered as for an answer when all
// is true, else up to where the messages end.
func (c *Chat) Text(n int, all bool) []byte {
	o := &Object{}
	if c.Model != "" {
		o.Set(memberModel, quote(c.Model))
	}
	list := make([][]byte, n)
	for i := range list {
		list[i] = c.Messages[i].JSON
	}
	o.Set("messages", append(append([]byte{'['}, bytes.Join(list, []byte{','})...), ']'))
	for _, m := range c.Members {
		o.Set(m.Name, m.JSON)
	}
	if !all {
		o.Set("add_generation_prompt", []byte("false"))
		o.Set("continue_final_message", []byte("false"))
	}
	return o.Bytes()
}
