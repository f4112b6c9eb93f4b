package dialect

import "encoding/json"

// Error is what a client is told: a stable code and a sentence that holds nothing of its request.
type Error struct {
	Status  int
	Code    string // stable, such as identity.unknown_key
	Message string
}

// Error is the sentence with its code.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// types are OpenAI's names of error classes, by status.
var types = map[int]string{
	400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
	405: "invalid_request_error", 413: "invalid_request_error", 415: "invalid_request_error", 429: "rate_limit_error",
	502: "api_error", 503: "service_unavailable_error", 504: "timeout_error",
}

// anthropicTypes are Anthropic's names of error classes, by status, where they are others.
var anthropicTypes = map[int]string{413: "request_too_large", 502: "api_error", 503: "overloaded_error", 504: "timeout_error"}

func anthropicType(status int) string {
	if kind, ok := anthropicTypes[status]; ok {
		return kind
	}
	if kind, ok := types[status]; ok {
		return kind
	}
	return "api_error"
}

// Body is the error as JSON in the shape that clients of the dialect read.
func (e *Error) Body(d Dialect) []byte {
	kind, ok := types[e.Status]
	if !ok {
		kind = "api_error"
	}
	var shape any
	switch d {
	case TGI:
		shape = struct {
			Error string `json:"error"`
			Type  string `json:"error_type"`
		}{e.Message, e.Code}
	case Anthropic:
		shape = struct {
			Type  string `json:"type"`
			Error any    `json:"error"`
		}{"error", struct {
			Type    string `json:"type"`
			Message string `json:"message"`
			Code    string `json:"code"`
		}{anthropicType(e.Status), e.Message, e.Code}}
	default:
		shape = struct {
			Error any `json:"error"`
		}{struct {
			Message string  `json:"message"`
			Type    string  `json:"type"`
			Param   *string `json:"param"`
			Code    string  `json:"code"`
		}{e.Message, kind, nil, e.Code}}
	}
	body, err := json.Marshal(shape)
	if err != nil {
		panic("dialect: an error cannot be written: " + err.Error()) // strings only: cannot happen
	}
	return body
}
