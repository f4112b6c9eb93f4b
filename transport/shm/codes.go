package shm

import "github.com/semproxy/semproxy/transport"

// Codes of refusals. None is retryable with the same descriptor: send the page again inline, or attach anew.
const (
	CodeBadDescriptor = "shm.bad_descriptor" // malformed, or a block outside its region
	CodeUnknownRegion = "shm.unknown_region" // not attached to this sidecar (any more)
	CodeDenied        = "shm.denied"         // the region belongs to another tenant
	CodeStale         = "shm.stale"          // the block has another generation: its sender used it again
	CodeTruncated     = "shm.truncated"      // the region is shorter than when it was attached
	CodeChecksum      = "shm.checksum"       // the content is not what the descriptor says
	CodeBadChallenge  = "shm.bad_challenge"  // no sender of this sidecar holds that challenge
	CodeNotAttached   = "shm.not_attached"   // the socket has not been bound to a tenant
	CodeBadRegion     = "shm.bad_region"     // not a regular, readable and writable memory file of the size that was said
	CodeUnsealed      = "shm.unsealed"       // a memfd that its sender could cut short
	CodeLimit         = "shm.limit"          // more regions, bytes or senders than allowed
	CodePeer          = "shm.peer"           // the process on the socket has a user that is not allowed
	CodePages         = "shm.pages"          // more pages under way by a socket than allowed
)

func refused(code, text string) *transport.Error { return transport.NewError(code, text) }

// validID reports whether s has the form of a region's name: 32 hexadecimal digits.
func validID(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
