// Package recovery is gin's recovery from panics without its trap: gin's own swallows http.ErrAbortHandler, so that an
// engine that dies in the middle of a stream looks to the client like a clean end.
package recovery

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/gin-gonic/gin"
)

// Middleware turns a panic into a logged 500, which answer writes. Two panics must cut the connection instead, or the client takes half an
// answer for a whole one: http.ErrAbortHandler, which says just that, and any panic after the answer has begun.
func Middleware(logger *slog.Logger, answer gin.HandlerFunc) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if err, ok := reason.(error); ok && err == http.ErrAbortHandler { //nolint:errorlint // net/http compares so
				panic(http.ErrAbortHandler)
			}
			logger.ErrorContext(c.Request.Context(), "request_panicked",
				"path", c.FullPath(), "reason", fmt.Sprint(reason), "stack", string(debug.Stack()))
			if c.Writer.Written() {
				panic(http.ErrAbortHandler)
			}
			c.Abort()
			answer(c)
		}()
		c.Next()
	}
}
