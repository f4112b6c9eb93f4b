package policy

import (
	"strconv"

	"github.com/semproxy/semproxy/codes"
)

// DeniedError says that a tenant may not use the service: no file names it and there is no tenant "unknown".
type DeniedError struct{ Tenant string }

// Error is the sentence for the caller.
func (e *DeniedError) Error() string {
	return "tenant " + strconv.Quote(e.Tenant) + ` is not named in the policy, and the policy has no tenant "unknown"`
}

// Code is the stable code; the error is final.
func (e *DeniedError) Code() string { return codes.PolicyDenied }

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
	WarnOldGuard    = "old_guard"   // maxAttentionError in place of maxFactsLost
	WarnLossy       = "lossy"       // ratio at most 0.25
	WarnUnsafe      = "unsafe"      // ratio at most 0.125
	WarnEvicts      = "evicts"      // a method that drops tokens
	WarnUnreachable = "unreachable" // an earlier rule matches everything that this one does
	WarnUnused      = "unused"      // a profile that nothing names
	WarnUnnamed     = "unnamed"     // tenants that nobody named can be compressed
	WarnGuard       = "guard"       // a guard that can never act
	WarnPattern     = "pattern"     // a pattern that looks like a regular expression
	WarnReserved    = "reserved"    // a tenant whose name looks like "all others"
	WarnRecord      = "record"      // the console may keep pages of tenants that nobody named
)

// String returns "file:line: path: message (kind)".
func (w Warning) String() string {
	return w.Where + ": " + w.Path + ": " + w.Message + " (" + w.Kind + ")"
}
