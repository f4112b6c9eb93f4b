package dialect

// The members that engines, connectors and the proxy tell each other: what a client sends of them does not reach the engine, and
// what the engine sends does not reach a client. They are removed from requests, answers, events and errors in whatever depth, but
// for values that are the user's own (see own).
const (
	memberKVParams  = "kv_transfer_params"
	memberECParams  = "ec_transfer_params"
	memberCacheSalt = "cache_salt"
)

// Private says whether a member is one of those.
func Private(name string) bool {
	return name == memberKVParams || name == memberECParams || name == memberCacheSalt
}

// privateHeaders are those by which routers tell engines, and the sidecars before them, where and by whom a request is to be computed:
// a client that sent them would choose its place, or make the engine fetch from where it says.
var privateHeaders = map[string]bool{
	"X-Data-Parallel-Rank": true, "X-Data-Parallel-Host-Port": true, "X-Prefiller-Host-Port": true, "X-Prefiller-Url": true, "X-Encoder-Hosts-Ports": true,
	"X-Worker-Instance-Id": true, "X-Prefill-Instance-Id": true, "X-Decode-Instance-Id": true, "X-Smg-Target-Worker": true, "X-Smg-Routing-Key": true,
	"X-Kv-Transfer-Params": true, "X-Cache-Salt": true,
}

// PrivateHeader says whether a header, in its canonical form, is one of those that neither clients nor engines may send through.
func PrivateHeader(name string) bool { return privateHeaders[name] }

// own are members whose values are the user's own, in which no engine looks for parameters: schemas, the arguments of tools, labels.
var own = map[string]bool{
	"tools": true, "functions": true, "response_format": true, "json_schema": true, "schema": true, "guided_json": true,
	"structured_outputs": true, "grammar": true, "metadata": true, "arguments": true, "input": true, "chat_template_kwargs": true,
}

// Places in requests and answers. Of what is neither ignored nor one of the others, only private members are looked for.
const (
	root place = 1 + iota
	inside

	words    // of a prompt: texts, and parts that are none
	literal  // of a prompt: a schema, say, whose every member is text
	chats    // the value of messages
	prompts  // the value of prompt: a text, tokens, or several of either
	prompt   // one of several
	source   // an image, a document or a text, as its own members say
	settings // TGI's parameters
	media    // media+i: a value, or a list of values, of the kind i

	lastMedia = media + 3
)

const (
	envelope   place = 100 + iota // what holds usage in an event: response, message
	choices                       // the value of choices
	choice                        // one of them
	counts                        // the value of usage
	countsMore                    // of usage's details
	details                       // TGI's
	sequences                     // of TGI's details
	meta                          // Cohere's
)

// interned are names as they are written, so that those met most need no memory.
var interned = func() map[string]string {
	out := map[string]string{}
	add := func(names ...string) {
		for _, name := range names {
			out[`"`+name+`"`] = name
		}
	}
	add(memberKVParams, memberECParams, memberCacheSalt, "", "role", "content", "type", "text", "id", "object", "created", "index", "delta", "message",
		"finish_reason", "usage", "choices", "response", "error", "data", "embedding", "code", "user", "top_p", "url", "name")
	for name := range deciding {
		add(name)
	}
	for name := range countNames {
		add(name)
	}
	for name := range mediaNames {
		add(name)
	}
	return out
}()
