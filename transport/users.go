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

// credentials are the sidecar's own, made anew for each server.
type credentials struct{ name, password string }

const anonymous = "anonymous"

// authorise writes the users and their permissions into so. Without users, a connection without credentials gets the
// permissions of a sender; it can still not take part in the queue group, which would let it take other tenants' pages.
func authorise(so *server.Options, users []User) (credentials, error) {
	own := credentials{name: "sidecar-" + rand.Text(), password: rand.Text()}
	so.Users = []*server.User{{
		Username: own.name, Password: own.password,
		Permissions:            permissions("_INBOX.>", subjectRoot+".>"),
		AllowedConnectionTypes: map[string]struct{}{jwt.ConnectionTypeInProcess: {}},
	}}
	if len(users) == 0 {
		so.NoAuthUser = anonymous
		so.Users = append(so.Users, &server.User{
			Username: anonymous, Password: rand.Text(), Permissions: permissions(subjectRoot+".>", "_INBOX.>"),
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
			Permissions: permissions(subjectRoot+"."+u.Tenant+".>", inboxPrefix(u.Tenant)+".>"),
		})
	}
	if err := errors.Join(faults...); err != nil {
		return own, fmt.Errorf("embedded NATS: %w", err)
	}
	return own, nil
}

func permissions(publish, subscribe string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{publish}},
		Subscribe: &server.SubjectPermission{Allow: []string{subscribe}},
	}
}
