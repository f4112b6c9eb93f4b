package page

import "encoding/json"

// MetaHeaders is the metadata of a page that belongs to a request through the proxy: those of the request's headers that the
// tenant's rules look at, a JSON object of texts. The proxy gives it to the adapter, so that it needs no state to be decided by.
const MetaHeaders = "headers"

const maxHeaders = 64

// Headers are what the page says of its request's headers; nil when it says nothing.
func (p *Page) Headers() (map[string]string, error) {
	text, there := p.Extra[MetaHeaders]
	if !there {
		return nil, nil
	}
	var out map[string]string
	if err := json.Unmarshal([]byte(text), &out); err != nil || len(out) > maxHeaders {
		return nil, refuse(CodeBadMetadata, `metadata "headers"`, quote(text), "a JSON object of at most 64 texts")
	}
	return out, nil
}
