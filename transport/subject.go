package transport

import (
	"fmt"
	"strings"
)

// Op is what a sender asks for: the fourth token of the subject.
type Op string

// The operations of version 1.
const (
	OpCompress Op = "compress" // body: a page; reply: its cores
	OpGet      Op = "get"      // body: the name of an object; reply: the object
	OpStat     Op = "stat"     // body: empty or what the handler defines; reply: a description
	OpResult   Op = "result"   // body: the id of a job; reply: what became of it
	OpAttach   Op = "attach"   // to one instance only; body: a challenge of its shared-memory socket
	OpJob      Op = "job"      // body: a page; reply: the id under which it is kept until its cores are stored
)

// QueueGroup is the queue group that every sidecar joins, so that each message is served by one of them.
const QueueGroup = "semproxy"

const (
	subjectRoot    = "kv"
	subjectVersion = "v1"
	// internalRoot begins the subjects of sidecars among themselves; no sender may publish there, nor have a reply sent.
	internalRoot = "semproxy"
	maxTenant    = 64
)

// shared are the operations that any sidecar of the queue group may serve.
var shared = [...]Op{OpCompress, OpGet, OpStat, OpJob, OpResult}

// Valid reports whether o is an operation of this version.
func (o Op) Valid() bool {
	for _, known := range shared {
		if o == known {
			return true
		}
	}
	return o == OpAttach
}

// ValidTenant reports whether name can be a tenant: 1 to 64 of A-Z, a-z, 0-9, underscore and hyphen.
// The rule keeps a tenant to one subject token and keeps wildcards out.
func ValidTenant(name string) bool {
	if name == "" || len(name) > maxTenant {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// Subject returns the subject on which tenant asks for op: kv.<tenant>.v1.<op>.
// The error has the code [CodeSubject].
func Subject(tenant string, op Op) (string, error) {
	if !ValidTenant(tenant) {
		return "", &Error{code: CodeSubject, text: "a tenant's name is 1 to 64 letters, digits, underscores or hyphens"}
	}
	if !op.Valid() {
		return "", &Error{code: CodeSubject, text: "the operation must be compress, get, stat, job, result or attach"}
	}
	return strings.Join([]string{subjectRoot, tenant, subjectVersion, string(op)}, "."), nil
}

// InstanceSubject returns the subject on which tenant asks one sidecar for op: kv.<tenant>.v1.<op>.<instance>. What lies
// in shared memory can be read by the sidecar of the same machine only. An instance is named like a tenant.
func InstanceSubject(tenant string, op Op, instance string) (string, error) {
	subject, err := Subject(tenant, op)
	if err != nil {
		return "", err
	}
	if !ValidTenant(instance) {
		return "", &Error{code: CodeSubject, text: "an instance's name is 1 to 64 letters, digits, underscores or hyphens"}
	}
	return subject + "." + instance, nil
}

// ParseSubject is the inverse of [Subject]: it accepts exactly what Subject returns.
// The error has the code [CodeSubject] and does not repeat the subject.
func ParseSubject(subject string) (tenant string, op Op, err error) {
	tokens := strings.SplitN(subject, ".", 5)
	if len(tokens) != 4 || tokens[0] != subjectRoot || tokens[2] != subjectVersion {
		return "", "", &Error{code: CodeSubject, text: "the subject must be kv.<tenant>.v1.<operation>"}
	}
	tenant, op = tokens[1], Op(tokens[3])
	if _, err := Subject(tenant, op); err != nil {
		return "", "", fmt.Errorf("parse subject: %w", err)
	}
	return tenant, op, nil
}

// inboxPrefix is the only place to which a tenant with private inboxes may direct a reply.
func inboxPrefix(tenant string) string { return "_INBOX." + tenant }

// InboxPrefix returns the inbox prefix of a tenant whose user was made by [Embedded]; a client of that user must
// connect with it (nats.CustomInboxPrefix, or client.Dial, which does).
func InboxPrefix(tenant string) string { return inboxPrefix(tenant) }
