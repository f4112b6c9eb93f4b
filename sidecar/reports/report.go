package reports

import (
	"encoding/json"
	"errors"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/recent"
)

// Report is what became of one page.
type Report struct {
	Tenant   string          `json:"tenant"`
	Model    string          `json:"model,omitempty"`
	TraceID  string          `json:"traceId,omitempty"`
	Decision policy.Decision `json:"decision,omitzero"` // its Tenant is empty where the page was refused before
	Page     recent.Page     `json:"page"`              // with its PerLayer
}

// maxLine bounds a report's JSON: 512 layers, and weights of as many heads.
const maxLine = 256 << 10

var errTooLong = errors.New("the report is longer than 256 KiB")

// written is a report as it is written: with the layers, which a page's own JSON leaves out.
type written struct {
	Report
	Layers []recent.Layer `json:"layers,omitempty"`
}

// encode is the report's line.
func encode(r *Report) ([]byte, error) {
	line, err := json.Marshal(written{*r, r.Page.PerLayer})
	if err == nil && len(line) >= maxLine {
		err = errTooLong
	}
	return append(line, '\n'), err
}

// decode reads a line, without its end.
func decode(line []byte) (*Report, error) {
	var w written
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, err
	}
	if w.Tenant == "" {
		return nil, errors.New("the report names no tenant")
	}
	w.Page.PerLayer = w.Layers
	return &w.Report, nil
}
