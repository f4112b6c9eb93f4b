package config

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestUsersAreReadFromTheirFile(t *testing.T) {
	got, err := LoadUsers(write(t, "users:\n  - { name: engine, password: s3cret, tenant: acme }\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []User{{Name: "engine", Password: "s3cret", Tenant: "acme"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBadUsersAreToldAtOnceWithoutPasswords(t *testing.T) {
	path := write(t, "users:\n  - { name: a, password: hunter2, tenant: acme }\n  - { name: a, password: hunter2 }\n")
	_, err := LoadUsers(path)
	want := path + ":3:5: users[1].tenant: must not be empty\n" + path + `:3:7: users[1].name: must differ from users[0].name, got "a"`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for name, text := range map[string]string{
		"password of the wrong kind": "users:\n  - { name: a, password: [hunter2], tenant: t }\n",
		"number as a password":       "users:\n  - { name: a, password: 4242, tenant: t }\n",
		"no users":                   "users: []\n",
		"empty file":                 "",
		"unknown key":                "users: []\ngroups: []\n",
	} {
		_, err := LoadUsers(write(t, text))
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "4242") {
			t.Errorf("%s: got %v, want an error without the password", name, err)
		}
	}
	if _, err := LoadUsers(filepath.Join(t.TempDir(), "users.yaml")); err == nil {
		t.Error("got no error for a file that is not there")
	}
}
