package shm

import (
	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/transport"
)

// Codes of refusals. None is retryable with the same descriptor: send the page again inline, or attach anew.
const (
	CodeBadDescriptor = codes.MemoryBadDescriptor // malformed, or a block outside its region
	CodeUnknownRegion = codes.MemoryUnknownRegion // not attached to this sidecar (any more)
	CodeDenied        = codes.MemoryDenied        // the region belongs to another tenant
	CodeStale         = codes.MemoryStale         // the block has another generation: its sender used it again
	CodeTruncated     = codes.MemoryTruncated     // the region is shorter than when it was attached
	CodeChecksum      = codes.MemoryChecksum      // the content is not what the descriptor says
	CodeBadChallenge  = codes.MemoryBadChallenge  // no sender of this sidecar holds that challenge
	CodeNotAttached   = codes.MemoryNotAttached   // the socket has not been bound to a tenant
	CodeBadRegion     = codes.MemoryBadRegion     // not a regular, readable and writable memory file of the size that was said
	CodeUnsealed      = codes.MemoryUnsealed      // a memfd that its sender could cut short
	CodeLimit         = codes.MemoryLimit         // more regions, bytes or senders than allowed
	CodePeer          = codes.MemoryPeer          // the process on the socket has a user that is not allowed
	CodePages         = codes.MemoryPages         // more pages under way by a socket than allowed
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
