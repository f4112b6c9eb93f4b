package policy

import "strconv"

// DeniedError says that a tenant may not use the service: no file names it and there is no tenant "unknown".
type DeniedError struct{ Tenant string }

// Error is the sentence for the caller.
func (e *DeniedError) Error() string {
	return "tenant " + strconv.Quote(e.Tenant) + ` is not named in the policy, and the policy has no tenant "unknown"`
}

// Code is the stable code; the error is final.
func (e *DeniedError) Code() string { return "policy.denied" }

// Warning is something that is allowed and probably not wanted.
type Warning struct {
	Where   string `json:"where"` // file:line
	Path    string `json:"path"`
	Kind    string `json:"kind"` // WarnLossy and so on
	Message string `json:"message"`

	file string
	line int
}

// Kinds of warnings.
const (
	WarnLossy       = "lossy"       // ratio at most 0.25
	WarnUnsafe      = "unsafe"      // ratio at most 0.125
	WarnEvicts      = "evicts"      // a method that drops tokens
	WarnUnreachable = "unreachable" // an earlier rule matches everything that this one does
	WarnUnused      = "unused"      // a profile that nothing names
	WarnUnnamed     = "unnamed"     // tenants that nobody named can be compressed
)

// String returns "file:line: path: message (kind)".
func (w Warning) String() string {
	return w.Where + ": " + w.Path + ": " + w.Message + " (" + w.Kind + ")"
}
