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

// Body is the error as JSON in the shape that clients of the dialect read.
func (e *Error) Body(d Dialect) []byte {
	kind, ok := types[e.Status]
	if !ok {
		kind = "api_error"
	}
	var shape any
	if d == TGI {
		shape = struct {
			Error string `json:"error"`
			Type  string `json:"error_type"`
		}{e.Message, e.Code}
	} else {
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
