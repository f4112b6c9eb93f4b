package dialect_test

import (
	"errors"
	"testing"

	"github.com/semproxy/semproxy/proxy/dialect"
)

func TestAChatIsWhatItsTemplateRenders(t *testing.T) {
	r, err := dialect.Inspect(chat, []byte(`{"model":"m","temperature":0,"tools":[1],"messages":[{"role":"system","content":"a"}, {"role":"user","content":[{"type":"text","text":"b"}]},{"role":"assistant","content":null}]}`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Chat()
	if err != nil || len(c.Messages) != 3 || c.Messages[1].Role != "user" {
		t.Fatalf("got %+v, %v", c, err)
	}
	for want, got := range map[string][]byte{
		`{"model":"m","messages":[{"role":"system","content":"a"}],"tools":[1],"add_generation_prompt":false,"continue_final_message":false}`:                               c.Text(1, false),
		`{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"}]},{"role":"assistant","content":null}],"tools":[1]}`: c.Text(3, true),
	} {
		if string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestChatsWhosePromptIsNotKnown(t *testing.T) {
	for body, want := range map[string]error{
		`{"prompt":"x"}`:            dialect.ErrNotChat,
		`{"messages":{}}`:           dialect.ErrNotChat,
		`{"messages":["x"]}`:        dialect.ErrNotChat,
		`{"messages":[{"role":1}]}`: dialect.ErrNotChat,
		`{"messages":[{"role":"user","role":"system","content":"x"}]}`:                  dialect.ErrNotChat,
		`{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`:               dialect.ErrNotText,
		`{"messages":[{"role":"user","content":[{"type":"text","type":"image_url"}]}]}`: dialect.ErrNotText,
		`{"messages":[{"role":"user","content":7}]}`:                                    dialect.ErrNotText,
		`{"messages":[],"documents":[1]}`:                                               dialect.ErrNotVisible,
		`{"messages":[],"reasoning_effort":"low"}`:                                      dialect.ErrNotVisible,
		`{"messages":[],"tool_choice":"none"}`:                                          dialect.ErrNotVisible,
		`{"messages":[],"chat_template":"a","chat_template":"b"}`:                       dialect.ErrNotVisible,
	} {
		r, err := dialect.Inspect(chat, []byte(body))
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if _, err := r.Chat(); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", body, err, want)
		}
	}
}
