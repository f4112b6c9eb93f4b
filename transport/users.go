package transport

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
)

// User may speak as one tenant on an embedded server, and only hear replies in the tenant's inbox. Several users may
// share a tenant; they can then hear each other's replies.
type User struct {
	Tenant   string
	Name     string // what the client logs in with; unique
	Password string // plain, or a bcrypt hash
}

// What the sidecar itself may do, beside sending replies: tell the outcomes of jobs and use JetStream for them.
var jobSubjects = []string{
	subjectRoot + ".*." + subjectVersion + ".done.*", internalRoot + ".>",
	"$JS.API.>", "$JS.ACK.>",
}

// credentials are the sidecar's own, made anew for each server.
type credentials struct{ name, password, operator, operatorPassword string }

const anonymous = "anonymous"

// authorise writes the users and their permissions into so. Without users, a connection without credentials gets the
// permissions of a sender; it can still not take part in the queue group, which would let it take other tenants' pages.
func authorise(so *server.Options, users []User) (credentials, error) {
	own := credentials{
		name: "sidecar-" + rand.Text(), password: rand.Text(), operator: "operator-" + rand.Text(), operatorPassword: rand.Text(),
	}
	sidecar := permissions("_INBOX.>", subjectRoot+".>", "_INBOX.>")
	sidecar.Publish.Allow = append(sidecar.Publish.Allow, jobSubjects...)
	operator := permissions("$JS.API.>", "_INBOX.>")
	operator.Publish.Allow = append(operator.Publish.Allow, internalRoot+".jobs.*")
	so.Users = []*server.User{{
		Username: own.name, Password: own.password,
		Permissions:            sidecar,
		AllowedConnectionTypes: map[string]struct{}{jwt.ConnectionTypeInProcess: {}},
	}}
	if so.JetStream {
		so.Users = append(so.Users, &server.User{Username: own.operator, Password: own.operatorPassword, Permissions: operator})
	}
	if len(users) == 0 {
		so.NoAuthUser = anonymous
		so.Users = append(so.Users, &server.User{
			Username: anonymous, Password: rand.Text(), Permissions: senderPermissions("*", "_INBOX.>"),
		})
		return own, nil
	}
	var faults []error
	names := make(map[string]bool, len(users))
	for i, u := range users {
		switch {
		case !ValidTenant(u.Tenant):
			faults = append(faults, fmt.Errorf("users[%d]: a tenant's name is 1 to 64 letters, digits, underscores or hyphens", i))
		case u.Name == "" || u.Password == "":
			faults = append(faults, fmt.Errorf("users[%d] (tenant %s): name and password must not be empty", i, u.Tenant))
		case names[u.Name]:
			faults = append(faults, fmt.Errorf("users[%d] (tenant %s): another user has the same name", i, u.Tenant))
		}
		names[u.Name] = true
		so.Users = append(so.Users, &server.User{
			Username: u.Name, Password: u.Password,
			Permissions: senderPermissions(u.Tenant, inboxPrefix(u.Tenant)+".>"),
		})
	}
	if err := errors.Join(faults...); err != nil {
		return own, fmt.Errorf("embedded NATS: %w", err)
	}
	return own, nil
}

// senderPermissions let a sender ask as a tenant, or as any with "*", and hear its replies and the outcomes of its jobs.
// Outcomes are told by sidecars only.
func senderPermissions(tenant, inbox string) *server.Permissions {
	root := subjectRoot + "." + tenant + "."
	p := permissions(root+">", inbox, root+subjectVersion+".done.*")
	p.Publish.Deny = []string{root + subjectVersion + ".done.>"}
	return p
}

func permissions(publish string, subscribe ...string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{publish}},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}
}
