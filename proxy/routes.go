package proxy

import (
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/semproxy/semproxy/proxy/recovery"
)

// adminRoutes are all that the admin listener answers. Each is a read: GET or HEAD.
func adminRoutes(cfg AdminConfig) http.Handler {
	engine := newEngine(cfg.Logger)
	read := func(path string, handler gin.HandlerFunc) {
		engine.GET(path, handler)
		engine.HEAD(path, handler)
	}
	show := func(path string, value func() any) {
		read(path, func(c *gin.Context) { writeJSON(c, http.StatusOK, value()) })
	}
	read("/healthz", func(c *gin.Context) { writeJSON(c, http.StatusOK, map[string]string{"status": "alive"}) })
	read("/readyz", readyz(cfg.Checks, cfg.CheckLimit))
	if cfg.Metrics != nil {
		read("/metrics", gin.WrapH(cfg.Metrics))
	}
	if cfg.Version != nil {
		show("/version", func() any { return cfg.Version })
	}
	if cfg.Catalog != nil {
		show("/api/v1/policies", cfg.Catalog.Policies)
		show("/api/v1/tenants", cfg.Catalog.Tenants)
	}
	return engine
}

// newEngine is gin without its logger and its recovery, which hides a cut stream from the client.
func newEngine(logger *slog.Logger) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.RedirectTrailingSlash = false
	engine.Use(recovery.Middleware(logger, func(c *gin.Context) {
		writeError(c, http.StatusInternalServerError, "internal", "the request could not be answered")
	}))
	engine.NoRoute(func(c *gin.Context) {
		writeError(c, http.StatusNotFound, "not_found", "no such path")
	})
	engine.NoMethod(func(c *gin.Context) {
		writeError(c, http.StatusMethodNotAllowed, "method_not_allowed", "this path is read with GET")
	})
	return engine
}

// apiError is the body of every answer that is not a success.
type apiError struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

func writeError(c *gin.Context, status int, code, message string) {
	var body apiError
	body.Error.Code, body.Error.Message = code, message
	writeJSON(c, status, body)
}

// writeJSON encodes before it writes, so that a value that cannot be encoded is an error and not half an answer.
func writeJSON(c *gin.Context, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		_ = c.Error(err)
		writeError(c, http.StatusInternalServerError, "internal", "the answer could not be encoded")
		return
	}
	c.Header("Cache-Control", "no-store")
	c.Header("X-Content-Type-Options", "nosniff")
	c.Data(status, "application/json; charset=utf-8", append(body, '\n'))
}
