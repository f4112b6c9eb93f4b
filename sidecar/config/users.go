package config

import (
	"github.com/semproxy/semproxy/policy/strict"
)

// User is an entry of nats.embedded.usersFile:
//
//	users:
//	  - { name: acme-engine, password: s3cret, tenant: acme }
type User struct {
	Name     string `yaml:"name"`
	Password string `yaml:"password" strict:"secret"` // plain, or a bcrypt hash
	Tenant   string `yaml:"tenant"`
}

// LoadUsers reads the users of path, which may be logged in with at the embedded server. Problems name file, line and
// path, and never a password.
func LoadUsers(path string) ([]User, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, &strict.Error{File: path, Problem: "cannot be read: " + reason(err)}
	}
	var file struct {
		Users []User `yaml:"users"`
	}
	doc, err := strict.Decode(path, data, &file)
	if err != nil {
		return nil, err
	}
	var problems []*strict.Error
	if len(file.Users) == 0 {
		problems = append(problems, doc.Errorf("users", "must have at least one entry"))
	}
	names := make(map[string]int)
	for i, u := range file.Users {
		at := strict.Index("users", i)
		for _, f := range []struct{ key, value string }{{"name", u.Name}, {"password", u.Password}, {"tenant", u.Tenant}} {
			if f.value == "" {
				problems = append(problems, doc.Errorf(strict.Key(at, f.key), "must not be empty"))
			}
		}
		if first, dup := names[u.Name]; dup && u.Name != "" {
			problems = append(problems, doc.Errorf(strict.Key(at, "name"), "must differ from users[%d].name, got %q", first, u.Name))
		}
		names[u.Name] = i
	}
	return file.Users, strict.Join(problems)
}
