package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/proxy/console"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/proxy/verify"
)

// Board is what the console shows of tenants and pages. *recent.Board is one.
type Board interface {
	Began() time.Time
	Tenants() []recent.Counts
	History(tenant string) []recent.Point
	Pages(tenant string, limit int) []recent.PageRecord
	Find(id string) (recent.PageRecord, bool)
}

// Studio tries policies on pages. Bodies are JSON; what comes back is encoded as JSON. Errors may have a Code, which is shown with
// their text.
type Studio interface {
	About() any
	Tokens(source string) (any, error)
	AddText(ctx context.Context, body []byte) (any, error)
	Run(ctx context.Context, body []byte) (any, error)
	Curve(ctx context.Context, body []byte) (any, error)
}

// overview is the console's first view.
type overview struct {
	Now     time.Time         `json:"now"`
	Began   time.Time         `json:"began"`
	Version any               `json:"version"`
	Policy  string            `json:"policy"` // version in force
	Ready   readiness         `json:"ready"`
	Notes   []string          `json:"notes"` // what is degraded though it is ready
	Tenants []recent.Counts   `json:"tenants"`
	Checked []verify.Counts   `json:"verified"` // answers of real requests, held against exact ones
	History []recent.Point    `json:"history"`  // of the tenant asked for, else of all
	Has     map[string]bool   `json:"has"`      // which parts there are: requests, studio
	Units   map[string]string `json:"units"`
}

type pageList struct {
	Pages []recent.PageRecord `json:"pages"` // newest first
}

// consoleRoutes are the console's files, and what they ask of the API beside the rest of it.
func consoleRoutes(engine *gin.Engine, api gin.IRoutes, read func(gin.IRoutes, string, gin.HandlerFunc), cfg *AdminConfig) {
	if cfg.Board == nil {
		return
	}
	files := console.Handler()
	open := engine.Group("/", onlyLocal(cfg.Token))
	read(open, "/", func(c *gin.Context) { c.Redirect(http.StatusFound, "console/") })
	read(open, "/console/*file", gin.WrapH(http.StripPrefix("/console", files)))

	read(api, "/overview", func(c *gin.Context) { writeJSON(c, http.StatusOK, look(c, cfg)) })
	read(api, "/pages", func(c *gin.Context) {
		limit, ok := limitOf(c)
		if ok {
			writeJSON(c, http.StatusOK, pageList{cfg.Board.Pages(c.Query("tenant"), limit)})
		}
	})
	read(api, "/pages/:id", func(c *gin.Context) {
		p, ok := cfg.Board.Find(c.Param("id"))
		if !ok {
			writeError(c, http.StatusNotFound, codes.AdminUnknownPage, "no page of this id, sequence, object or trace is remembered")
			return
		}
		writeJSON(c, http.StatusOK, p)
	})
	if cfg.Studio == nil {
		read(api, "/studio", func(c *gin.Context) {
			writeError(c, http.StatusNotFound, codes.NotFound, "this process compresses no pages, and so has no studio: the console of the page plane's process has")
		})
		return
	}
	read(api, "/studio", func(c *gin.Context) { writeJSON(c, http.StatusOK, cfg.Studio.About()) })
	read(api, "/studio/tokens", func(c *gin.Context) {
		answer, err := cfg.Studio.Tokens(c.Query("source"))
		studioAnswer(c, answer, err)
	})
	for path, do := range map[string]func(context.Context, []byte) (any, error){
		"/studio/text": cfg.Studio.AddText, "/studio/run": cfg.Studio.Run, "/studio/curve": cfg.Studio.Curve,
	} {
		api.POST(path, func(c *gin.Context) {
			body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, 1<<20))
			if err != nil {
				writeError(c, http.StatusRequestEntityTooLarge, codes.AdminTooLarge, "the body is larger than 1 MiB")
				return
			}
			answer, err := do(c.Request.Context(), body)
			studioAnswer(c, answer, err)
		})
	}
}

func studioAnswer(c *gin.Context, answer any, err error) {
	var known interface{ Code() string }
	switch {
	case err == nil:
		writeJSON(c, http.StatusOK, answer)
	case errors.As(err, &known):
		writeError(c, http.StatusUnprocessableEntity, known.Code(), err.Error())
	case c.Request.Context().Err() != nil:
		writeError(c, http.StatusRequestTimeout, codes.AdminCancelled, "the caller has gone")
	default:
		_ = c.Error(err)
		writeError(c, http.StatusInternalServerError, codes.Internal, "the page could not be tried")
	}
}

// look is what the console shows first.
func look(c *gin.Context, cfg *AdminConfig) overview {
	wanted := wantsHard
	if cfg.ServesRequests {
		wanted = wantsRequests
	}
	_, ready := cfg.ready(c.Request.Context(), wanted)
	o := overview{
		Now: time.Now(), Began: cfg.Board.Began(), Version: cfg.Version, Ready: ready, Notes: []string{}, Tenants: cfg.Board.Tenants(), Checked: []verify.Counts{},
		History: cfg.Board.History(c.Query("tenant")), Has: map[string]bool{"requests": cfg.ServesRequests, "studio": cfg.Studio != nil, "writable": cfg.Writable},
		Units: map[string]string{"history": "10 s", "attentionError": "relative error of the attention output"},
	}
	if cfg.Verify != nil {
		o.Checked = append(o.Checked, cfg.Verify.List()...)
	}
	if cfg.Notes != nil {
		o.Notes = append(o.Notes, cfg.Notes()...)
	}
	if cfg.Policies != nil {
		o.Policy = cfg.Policies.Current().Version()
	}
	return o
}

// limitOf reads ?limit=; false when it has been answered.
func limitOf(c *gin.Context) (int, bool) {
	text := c.Query("limit")
	if text == "" {
		return 100, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		writeError(c, http.StatusBadRequest, codes.AdminBadLimit, "limit must be a whole number from 1")
		return 0, false
	}
	return n, true
}
