// Package config is the configuration of the service: one struct, filled from defaults, then a YAML file, then environment
// variables, then flags; each wins over those before it.
//
// [Load] returns the effective values together with where each came from, or every problem at once, each with its file and
// line, variable or flag. The names of variables and flags are derived from the YAML path by rule ([Keys]), so there is no
// second list to keep. [Loaded.Print] shows what is in force without its secrets.
//
// A [Loaded] is not changed after Load and may be read from any number of goroutines.
package config
