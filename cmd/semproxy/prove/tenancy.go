package prove

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/page"
)

// CodeTenancy is the code of a deployment in which an attack succeeded.
const CodeTenancy = "prove.tenancy"

// Verdict is what became of one attack. Held: the attacker got nothing of the victim's.
type Verdict struct {
	Attack string `json:"attack"`
	Held   bool   `json:"held"`
	Got    string `json:"got"` // what was answered
}

// tenancy are the attacks of one tenant on another of a deployment, with the credentials of both.
type tenancy struct {
	attacker, victim *nats.Conn
	of, on           string // the tenants
	inbox            string // prefix of the attacker's own inboxes
	object           string // of the victim
	body             []byte // the victim's cores
	page             []byte // the victim's page
	verdicts         []Verdict
}

// listening is how long an attacker waits for what it should not hear, and for answers that should not come.
const listening = 1500 * time.Millisecond

// proveTenancy has one tenant attack another, and writes a verdict per attack.
func proveTenancy(ctx context.Context, victim, attacker *proofTarget, whole *page.Page, out, log io.Writer, output string) error {
	t := &tenancy{of: attacker.tenant, on: victim.tenant, inbox: attacker.conn.InboxPrefix}
	v, err := victim.await(ctx, log)
	if err != nil {
		return fmt.Errorf("tenant %s: %w", victim.tenant, err)
	}
	defer v.close()
	a, err := attacker.await(ctx, log)
	if err != nil {
		return fmt.Errorf("tenant %s: %w", attacker.tenant, err)
	}
	defer a.close()
	if t.victim, err = transport.Connect(victim.url, victim.conn); err != nil {
		return err
	}
	defer t.victim.Close()
	if t.attacker, err = transport.Connect(attacker.url, attacker.conn); err != nil {
		return err
	}
	defer t.attacker.Close()
	if err := t.prepare(ctx, v, whole); err != nil {
		return err
	}
	for _, attack := range []func(context.Context, *session){
		t.getsTheObject, t.asksForThePrefix, t.speaksAsTheVictim, t.readsItsState, t.hearsItsReplies, t.hearsItsPages, t.takesItsPages,
		t.sendsItsReplyToTheVictim, t.readsTheOutcome, t.sharesTheObject,
	} {
		attack(ctx, a)
	}
	return t.write(out, output)
}

// prepare stores an object of the victim's.
func (t *tenancy) prepare(ctx context.Context, v *session, whole *page.Page) error {
	pages, err := fresh(whole, v.most)
	if err != nil {
		return err
	}
	if t.page, err = pages[0].Append(nil); err != nil {
		return err
	}
	reply, err := v.Compress(ctx, t.page)
	if err != nil {
		return fmt.Errorf("tenant %s: %w", t.on, err)
	}
	t.body = reply.Body
	if t.object = reply.Header.Get(sidecar.HeaderObject); t.object == "" {
		return fmt.Errorf("the policy of tenant %s keeps nothing (%s): there is nothing to be taken", t.on, reply.Header.Get(sidecar.HeaderReason))
	}
	return nil
}

func (t *tenancy) say(attack string, held bool, got string) {
	t.verdicts = append(t.verdicts, Verdict{attack, held, got})
}

// ask requests as the attacker and tells what came back.
func (t *tenancy) ask(ctx context.Context, subject string, body []byte) (*nats.Msg, string) {
	ctx, cancel := context.WithTimeout(ctx, 2*listening)
	defer cancel()
	msg, err := t.attacker.RequestWithContext(ctx, subject, body)
	switch {
	case err != nil:
		return nil, err.Error()
	case msg.Header.Get(transport.HeaderCode) != "":
		return msg, msg.Header.Get(transport.HeaderCode)
	}
	return msg, fmt.Sprintf("ok, %d bytes", len(msg.Data))
}

func answered(msg *nats.Msg) bool {
	return msg != nil && msg.Header.Get(transport.HeaderStatus) == transport.StatusOK
}

func (t *tenancy) getsTheObject(ctx context.Context, _ *session) {
	msg, got := t.ask(ctx, "kv."+t.of+".v1.get", []byte(t.object))
	t.say("get the other tenant's object by its name", !answered(msg), got)
}

func (t *tenancy) asksForThePrefix(ctx context.Context, _ *session) {
	p, err := page.Decode(t.page, page.DefaultLimits())
	if err != nil {
		t.say("ask which of its prefixes are stored", false, err.Error())
		return
	}
	ids := make([]int64, p.Tokens)
	for i := range ids {
		ids[i] = p.TokenIDs.At(i)
	}
	body, err := json.Marshal(map[string]any{
		"model": p.Model, "layout": p.Layout, "dtype": p.DType.String(), "layers": p.Layers, "kv_heads": p.KVHeads, "head_dim": p.HeadDim, "token_ids": ids,
		"rope": map[string]any{"type": p.Rope.Type, "theta": p.Rope.Theta, "rotary_dim": p.Rope.RotaryDim, "interleaved": p.Rope.Interleaved},
	})
	if err != nil {
		t.say("ask which of its prefixes are stored", false, err.Error())
		return
	}
	msg, got := t.ask(ctx, "kv."+t.of+".v1.get", body)
	var reply page.PrefixReply
	found := answered(msg) && json.Unmarshal(msg.Data, &reply) == nil && reply.Tokens > 0
	t.say("ask which of its prefixes are stored", !found, got)
}

func (t *tenancy) speaksAsTheVictim(ctx context.Context, _ *session) {
	msg, got := t.ask(ctx, "kv."+t.on+".v1.get", []byte(t.object))
	t.say("get it on the other tenant's own subject", !answered(msg), got)
}

func (t *tenancy) readsItsState(ctx context.Context, _ *session) {
	msg, got := t.ask(ctx, "kv."+t.on+".v1.stat", nil)
	t.say("read its state", !answered(msg), got)
}

// listen subscribes as the attacker while the victim works, and says how many messages came.
func (t *tenancy) listen(ctx context.Context, attack, subject, queue string) {
	sub, err := t.attacker.QueueSubscribeSync(subject, queue)
	if err == nil {
		err = t.attacker.FlushTimeout(listening)
	}
	if err != nil {
		t.say(attack, true, err.Error())
		return
	}
	defer func() { _ = sub.Unsubscribe() }()
	limited, cancel := context.WithTimeout(ctx, 2*listening)
	defer cancel()
	reply, victimErr := t.victim.RequestWithContext(limited, "kv."+t.on+".v1.get", []byte(t.object))
	heard := 0
	for {
		if _, err := sub.NextMsg(listening / 3); err != nil {
			break
		}
		heard++
	}
	got := fmt.Sprintf("%d messages", heard)
	held := heard == 0
	if victimErr != nil || !answered(reply) { // somebody else has taken the request
		held, got = false, got+fmt.Sprintf("; the other tenant's request failed: %v", victimErr)
	}
	t.say(attack, held, got)
}

func (t *tenancy) hearsItsReplies(ctx context.Context, _ *session) {
	t.listen(ctx, "hear its replies (its inboxes)", transport.InboxPrefix(t.on)+".>", "")
	t.listen(ctx, "hear everybody's replies (all inboxes)", "_INBOX.>", "")
}

func (t *tenancy) hearsItsPages(ctx context.Context, _ *session) {
	t.listen(ctx, "hear its requests", "kv."+t.on+".>", "")
	t.listen(ctx, "hear everything", ">", "")
}

func (t *tenancy) takesItsPages(ctx context.Context, _ *session) {
	t.listen(ctx, "take its requests, as a sidecar of the queue group", "kv.*.v1.get", transport.QueueGroup)
}

// sendsItsReplyToTheVictim has a reply sent where the attacker may not send itself.
func (t *tenancy) sendsItsReplyToTheVictim(context.Context, *session) {
	const attack = "have a reply sent into the other tenant's inbox"
	inbox := transport.InboxPrefix(t.on) + ".tenancy"
	sub, err := t.victim.SubscribeSync(inbox)
	if err == nil {
		err = t.victim.FlushTimeout(listening)
	}
	if err != nil {
		t.say(attack, true, err.Error())
		return
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := t.attacker.PublishRequest("kv."+t.of+".v1.stat", inbox, nil); err != nil {
		t.say(attack, true, err.Error())
		return
	}
	msg, err := sub.NextMsg(listening)
	if err != nil {
		t.say(attack, true, err.Error())
		return
	}
	t.say(attack, false, fmt.Sprintf("%d bytes arrived", len(msg.Data)))
}

func (t *tenancy) readsTheOutcome(ctx context.Context, _ *session) {
	sub, err := t.attacker.SubscribeSync("kv." + t.on + ".v1.done.*")
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }()
		_ = t.attacker.FlushTimeout(listening)
	}
	msg, got := t.ask(ctx, "kv."+t.on+".v1.result", []byte("tenancy"))
	// job.pending and job.unsupported answer too: that is an answer on the other tenant's subject.
	t.say("ask what became of its jobs", msg == nil, got)
}

// sharesTheObject sends the victim's very page as the attacker: it must be compressed anew, not answered from the victim's store.
func (t *tenancy) sharesTheObject(ctx context.Context, a *session) {
	const attack = "send its page, and learn that it is stored"
	reply, err := a.Compress(ctx, t.page)
	if err != nil {
		t.say(attack, true, err.Error())
		return
	}
	outcome, object := reply.Header.Get(sidecar.HeaderOutcome), reply.Header.Get(sidecar.HeaderObject)
	held := outcome != "stored" && object != t.object
	if held && bytes.Equal(reply.Body, t.body) {
		held = false // even the trace is the other's
	}
	t.say(attack, held, outcome)
}

var errTenancy = errors.New(CodeTenancy + ": a tenant gets at another's")

// write tells the verdicts, and returns an error when one attack did not fail.
func (t *tenancy) write(w io.Writer, output string) error {
	held := true
	for _, v := range t.verdicts {
		held = held && v.Held
	}
	found := map[string]any{"ok": held, "attacker": t.of, "victim": t.on, "attacks": t.verdicts}
	err := show.As(w, output, found, func(w io.Writer) error {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(tw, "%s attacks %s\tVERDICT\tANSWER\n", t.of, t.on)
		for _, v := range t.verdicts {
			verdict := "held"
			if !v.Held {
				verdict = "BROKEN"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\n", v.Attack, verdict, v.Got)
		}
		return tw.Flush()
	})
	if err != nil {
		return err
	}
	if !held {
		return errTenancy
	}
	return nil
}
