// Command generate writes the JSON Schema of policy files to the file named by -o. go generate runs it.
package main

import (
	"flag"
	"log"
	"os"

	"github.com/semproxy/semproxy/policy/schema"
)

func main() {
	out := flag.String("o", "policy.schema.json", "file to write")
	flag.Parse()
	data, err := schema.JSON()
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(*out, data, 0o644); err != nil { //nolint:gosec // a file of the repository, for everybody to read
		log.Fatal(err)
	}
}
