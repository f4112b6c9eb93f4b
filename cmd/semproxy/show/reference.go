package show

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Reference writes the manual of the commands below c, as Markdown. Flags that are keys of the configuration are left out.
func Reference(b *bytes.Buffer, c *cobra.Command, keys *pflag.FlagSet) {
	for _, sub := range c.Commands() {
		if sub.Hidden || sub.Name() == "help" || sub.Name() == "completion" {
			continue
		}
		if sub.Runnable() {
			fmt.Fprintf(b, "\n## %s\n\n%s.\n\n```\n%s\n```\n", sub.CommandPath(), strings.TrimSuffix(sub.Short, "."), sub.UseLine())
			if sub.Example != "" {
				fmt.Fprintf(b, "\n```sh\n%s\n```\n", strings.TrimPrefix(strings.ReplaceAll(sub.Example, "\n  ", "\n"), "  "))
			}
			describeFlags(b, sub, keys)
		}
		Reference(b, sub, keys)
	}
}

// describeFlags leaves out those that are keys of the configuration.
func describeFlags(b *bytes.Buffer, c *cobra.Command, keys *pflag.FlagSet) {
	first := true
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || keys.Lookup(f.Name) != nil {
			return
		}
		if first {
			b.WriteString("\n| flag | default | meaning |\n| --- | --- | --- |\n")
			first = false
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		value := f.DefValue
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, value, strings.ReplaceAll(f.Usage, "|", "\\|"))
	})
}
