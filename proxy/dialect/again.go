package dialect

import (
	"encoding/json"
	"strconv"
)

// maxAgain bounds an answer that is asked for again.
const maxAgain = 64

// Again makes a request's body anew, as it was sent to the engine, so that it is answered alike each time: greedily, with one seed,
// in one piece, with log probabilities. kv becomes its kv_transfer_params. ok is false for a request that cannot be asked so.
func Again(route Route, body []byte, kv any) (again []byte, ok bool) {
	o, err := ParseObject(body)
	if err != nil || route.Kind != Generate || !route.UsageOption {
		return nil, false
	}
	params, err := json.Marshal(kv)
	if err != nil {
		return nil, false
	}
	most := maxAgain
	for _, name := range limitNames {
		if value, there := o.Get(name); there {
			if n, err := decodeNumber(value); err == nil && n >= 1 {
				most = min(most, int(n))
			}
		}
		o.Delete(name)
	}
	for _, name := range []string{"n", "best_of", "top_logprobs", memberStreamOptions, "use_beam_search", "top_k", "top_p", "min_p"} {
		o.Delete(name)
	}
	logprobs := "true"
	if route.Operation == "text_completion" {
		logprobs = "1"
	}
	for _, m := range []Member{
		{"max_tokens", []byte(strconv.Itoa(most))}, {"temperature", []byte("0")}, {"seed", []byte("0")}, {memberStream, []byte("false")},
		{"logprobs", []byte(logprobs)}, {memberKVParams, params},
	} {
		o.Set(m.Name, m.JSON)
	}
	return o.Bytes(), true
}
