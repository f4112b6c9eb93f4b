package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const gpl = `This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public License as
published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version.
This program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the implied warranty of
MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more details.
You should have received a copy of the GNU General Public License along with this program. If not, see <https://www.gnu.org/licenses/>.`

func TestOnlyAllowedLicencesPass(t *testing.T) {
	mit, err := os.ReadFile("../../proxy/console/web/licences/uplot")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		texts []text
		want  string // of the error; empty: it passes
	}{
		{"MIT", []text{{"LICENSE", mit}}, ""},
		{"a notice beside it", []text{{"LICENSE", mit}, {"NOTICE", []byte("This product includes software of somebody.")}}, ""},
		{"GPL", []text{{"COPYING", []byte(gpl)}}, "GPL-3.0"},
		{"GPL in a folder of an MIT module", []text{{"LICENSE", mit}, {"x/LICENSE.txt", []byte(gpl)}}, "x/LICENSE.txt"},
		{"words that are no licence", []text{{"LICENSE", []byte("All rights reserved. Ask the author.")}}, "no licence that is known"},
		{"a notice alone", []text{{"NOTICE", []byte("This product includes software of somebody.")}}, "no licence"},
		{"nothing", nil, "no licence"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := part{name: "example.org/m", version: "v1.0.0", texts: c.texts}
			err := p.classify()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestNoticesHoldEveryPartAndAreTheSameTwice(t *testing.T) {
	var both [2][]byte
	for i := range both {
		file := filepath.Join(t.TempDir(), "notices")
		var out bytes.Buffer
		if err := run([]string{"--notices", file}, &out); err != nil {
			t.Fatal(err)
		}
		var err error
		if both[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(both[0], both[1]) {
		t.Error("the notices differ")
	}
	for _, want := range []string{"\nGo go1.", "\ngithub.com/nats-io/nats.go v", "\nuplot 1.", "Leon Sorokin", "zstd/internal/xxhash/LICENSE"} {
		if !bytes.Contains(both[0], []byte(want)) {
			t.Errorf("the notices have no %q", want)
		}
	}
	if root, err := filepath.Abs("../.."); err == nil && bytes.Contains(both[0], []byte(root)) {
		t.Error("the notices name a folder of this machine")
	}
}
