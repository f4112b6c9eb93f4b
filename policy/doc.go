// Package policy says what happens to a tenant's pages: which profile compresses them, and within which limits.
//
// A person writes YAML: named profiles, and per tenant a list of rules of which the first match wins. [Compile] checks every
// file strictly, reports all problems at once with file, line and path, and returns an immutable [Set]. [Set.Decide] then
// answers for one request which profile applies and names the rule that said so. A tenant that nobody named gets the rules
// of the tenant "unknown", or is denied when there is none; nobody is ever compressed silently.
//
// The package is pure: no files, no clocks, no logs, no goroutines. Package watch loads and follows files; package schema
// makes the JSON Schema that editors complete from.
package policy
