package proxy

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/gin-gonic/gin"
)

// recovery turns a panic into a logged 500. Two panics must cut the connection instead, or the client takes half an
// answer for a whole one: http.ErrAbortHandler, which says just that, and any panic after the answer has begun.
func recovery(logger *slog.Logger) gin.HandlerFunc {
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
			writeError(c, http.StatusInternalServerError, "internal", "the request could not be answered")
		}()
		c.Next()
	}
}
