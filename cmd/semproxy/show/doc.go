// Package show prints the results of commands: as a table, as JSON or as YAML. It also has the flags that choose the form, and writes
// sizes and durations for people.
package show
