package proxy

import (
	_ "embed" // the API's description
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/proxy/recovery"
	"github.com/semproxy/semproxy/proxy/verify"
)

// adminRoutes are all that the admin listener answers. What reads is GET or HEAD.
func adminRoutes(cfg AdminConfig) *gin.Engine {
	engine := newEngine(cfg.Logger)
	read := func(group gin.IRoutes, path string, handler gin.HandlerFunc) {
		group.GET(path, handler)
		group.HEAD(path, handler)
	}
	read(engine, "/healthz", func(c *gin.Context) { writeJSON(c, http.StatusOK, map[string]string{"status": "alive"}) })
	whole := wantsHard
	if cfg.ServesRequests {
		whole = wantsRequests
	}
	read(engine, "/readyz", readyz(&cfg, whole))
	read(engine, "/readyz/pages", readyz(&cfg, wantsAll))
	read(engine, "/readyz/requests", readyz(&cfg, wantsRequests))
	if cfg.Metrics != nil {
		read(engine, "/metrics", gin.WrapH(cfg.Metrics))
	}
	if cfg.Version != nil {
		read(engine, "/version", func(c *gin.Context) { writeJSON(c, http.StatusOK, cfg.Version) })
	}
	api := engine.Group("/api/v1", authorize(cfg.Token))
	read(api, "/openapi.json", func(c *gin.Context) { c.Data(http.StatusOK, "application/json; charset=utf-8", openAPI) })
	if cfg.Catalog != nil {
		read(api, "/tenants", func(c *gin.Context) { writeJSON(c, http.StatusOK, cfg.Catalog.Tenants()) })
		read(api, "/policies", func(c *gin.Context) {
			if cfg.Policies != nil {
				c.Header("ETag", `"`+cfg.Policies.Current().Version()+`"`)
			}
			writeJSON(c, http.StatusOK, cfg.Catalog.Policies())
		})
	}
	if cfg.Verify != nil {
		read(api, "/verify", func(c *gin.Context) {
			writeJSON(c, http.StatusOK, struct {
				Verify []verify.Counts `json:"verify"`
			}{cfg.Verify.List()})
		})
	}
	if cfg.Policies != nil {
		api.PUT("/policies", swapPolicy(cfg.Policies, cfg.Writable, cfg.Logger))
	}
	if cfg.Requests != nil && cfg.Policies != nil {
		read(api, "/requests", listRequests(cfg.Requests))
		read(api, "/requests/:id/explain", explainRequest(&cfg))
		api.POST("/policies/dry-run", dryRunPolicy(cfg.Requests, cfg.Policies))
	}
	consoleRoutes(engine, api, read, &cfg)
	return engine
}

// openAPI describes /api/v1; a test keeps it true.
//
//go:embed openapi.json
var openAPI []byte

// newEngine is gin without its logger and its recovery, which hides a cut stream from the client.
func newEngine(logger *slog.Logger) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.RedirectTrailingSlash = false
	engine.Use(recovery.Middleware(logger, func(c *gin.Context) {
		writeError(c, http.StatusInternalServerError, codes.Internal, "the request could not be answered")
	}))
	engine.NoRoute(func(c *gin.Context) {
		writeError(c, http.StatusNotFound, codes.NotFound, "no such path")
	})
	engine.NoMethod(func(c *gin.Context) {
		writeError(c, http.StatusMethodNotAllowed, codes.AdminMethodNotAllowed, "this path has no such method; see Allow")
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
		writeError(c, http.StatusInternalServerError, codes.Internal, "the answer could not be encoded")
		return
	}
	c.Header("Cache-Control", "no-store")
	c.Header("X-Content-Type-Options", "nosniff")
	c.Data(status, "application/json; charset=utf-8", append(body, '\n'))
}
