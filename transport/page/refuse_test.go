package page

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"
)

// The container: every lie that a header can tell.
func TestDecodeRefusesBrokenContainers(t *testing.T) {
	tensorOf := func(offsets string) string { return `{"dtype":"U8","shape":[4],"data_offsets":` + offsets + `}` }
	good := encode(t, fullPage(F16))
	for name, row := range map[string]struct {
		blob        []byte
		code, words string
	}{
		"nothing":                   {nil, CodeTruncated, "0 bytes"},
		"half a length":             {good[:5], CodeTruncated, "5 bytes"},
		"cut in the header":         {good[:100], CodeTruncated, "inside its header"},
		"cut in the tensors":        {good[:len(good)-1], CodeTruncated, "outside the blob"},
		"bytes left over":           {append(good[:len(good):len(good)], 0), CodeBadHeader, "no tensor owns"},
		"a length beyond the blob":  {binary.LittleEndian.AppendUint64(nil, 1<<20), CodeTruncated, "inside its header"},
		"a length of 2^64-1":        {append(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), make([]byte, 64)...), CodeTruncated, "inside its header"},
		"a header over the limit":   {raw(strings.Repeat(" ", 65<<10), 0), CodeTooLarge, "header"},
		"an empty header":           {raw("", 0), CodeBadHeader, "'{'"},
		"space before the header":   {raw(" {}", 0), CodeBadHeader, "'{'"},
		"no JSON":                   {raw("{]", 0), CodeBadHeader, "a string"},
		"JSON cut short":            {raw(`{"a":`, 0), CodeBadHeader, "the end"},
		"JSON after the end":        {raw(`{}{}`, 0), CodeBadHeader, "the end"},
		"no UTF-8":                  {raw("{\"\xff\":1}", 0), CodeBadHeader, "UTF-8"},
		"a lone surrogate":          {raw(`{"\ud800":1}`, 0), CodeBadHeader, "escape"},
		"a raw control character":   {raw("{\"a\nb\":1}", 0), CodeBadHeader, "control"},
		"a trailing comma":          {raw(`{"__metadata__":{},}`, 0), CodeBadHeader, "a string"},
		"deep nesting":              {raw(`{"a":`+strings.Repeat("[", 60000), 0), CodeBadHeader, "'{'"},
		"deep nesting in a shape":   {raw(`{"a":{"shape":`+strings.Repeat("[", 60000), 0), CodeBadHeader, "a number"},
		"metadata that is no text":  {raw(`{"__metadata__":{"a":1}}`, 0), CodeBadHeader, "a string"},
		"metadata that is null":     {raw(`{"__metadata__":null}`, 0), CodeBadHeader, "'{'"},
		"metadata in metadata":      {raw(`{"__metadata__":{"a":{}}}`, 0), CodeBadHeader, "a string"},
		"a tensor twice":            {raw(`{"a":`+tensorOf("[0,4]")+`,"a":`+tensorOf("[4,8]")+`}`, 8), CodeBadHeader, `repeats a key: got "a"`},
		"a tensor twice, escaped":   {raw(`{"a":`+tensorOf("[0,4]")+`,"\u0061":`+tensorOf("[4,8]")+`}`, 8), CodeBadHeader, `repeats a key: got "a"`},
		"metadata twice":            {raw(`{"__metadata__":{},"__metadata__":{}}`, 0), CodeBadHeader, "repeats a key"},
		"a metadata key twice":      {raw(`{"__metadata__":{"a":"1","a":"2"}}`, 0), CodeBadHeader, "repeats a key"},
		"a field twice":             {raw(`{"a":{"dtype":"U8","dtype":"U8"}}`, 0), CodeBadHeader, "repeats a key"},
		"a field too many":          {raw(`{"a":{"dtype":"U8","shape":[],"x":1}}`, 0), CodeBadHeader, `"x"`},
		"a field too few":           {raw(`{"a":{"dtype":"U8","shape":[4]}}`, 4), CodeBadHeader, "not described"},
		"no shape":                  {raw(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1), CodeBadHeader, "not described"},
		"no element type":           {raw(`{"a":{"shape":[0],"data_offsets":[0,0]}}`, 0), CodeBadHeader, "not described"},
		"a number of 70 digits":     {raw(`{"a":{"shape":[`+strings.Repeat("1", 70)+`]}}`, 0), CodeBadHeader, "a number"},
		"one offset":                {raw(`{"a":`+tensorOf("[4]")+`}`, 4), CodeBadHeader, "1 offsets"},
		"three offsets":             {raw(`{"a":`+tensorOf("[0,4,8]")+`}`, 8), CodeBadHeader, "at most 2"},
		"an unknown element type":   {raw(`{"a":{"dtype":"F99","shape":[4],"data_offsets":[0,4]}}`, 4), CodeBadDType, `"F99"`},
		"a negative size":           {raw(`{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}`, 4), CodeBadHeader, `"-4"`},
		"a fractional size":         {raw(`{"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}}`, 4), CodeBadHeader, `"4.0"`},
		"a size with an exponent":   {raw(`{"a":{"dtype":"U8","shape":[4e0],"data_offsets":[0,4]}}`, 4), CodeBadHeader, `"4e0"`},
		"a size with leading zeros": {raw(`{"a":{"dtype":"U8","shape":[04],"data_offsets":[0,4]}}`, 4), CodeBadHeader, "a number"},
		"a size of 2^64":            {raw(`{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,4]}}`, 4), CodeBadHeader, "no size"},
		"nine dimensions":           {raw(`{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}`, 1), CodeBadHeader, "at most 8"},
		"a shape that overflows":    {raw(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), CodeTooLarge, "overflow"},
		"a size that overflows":     {raw(`{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}`, 0), CodeTooLarge, "overflow"},
		"offsets that go back":      {raw(`{"a":`+tensorOf("[8,4]")+`}`, 8), CodeBadHeader, "ends before it begins"},
		"offsets of another size":   {raw(`{"a":`+tensorOf("[0,5]")+`}`, 5), CodeBadShape, "5 bytes, want 4 bytes"},
		"offsets outside":           {raw(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[9223372036854775803,9223372036854775807]}}`, 4), CodeTruncated, "outside"},
		"overlapping tensors":       {raw(`{"a":`+tensorOf("[0,4]")+`,"b":`+tensorOf("[3,7]")+`}`, 7), CodeOverlap, `"b"`},
		"two tensors on one place":  {raw(`{"a":`+tensorOf("[0,4]")+`,"b":`+tensorOf("[0,4]")+`}`, 4), CodeOverlap, `"b"`},
		"a hole between tensors":    {raw(`{"b":`+tensorOf("[5,9]")+`,"a":`+tensorOf("[0,4]")+`}`, 9), CodeBadHeader, "hole"},
		"a hole at the start":       {raw(`{"a":`+tensorOf("[1,5]")+`}`, 5), CodeBadHeader, "hole"},
		"a long tensor name":        {raw(`{"`+strings.Repeat("n", 200)+`":`+tensorOf("[0,4]")+`}`, 4), CodeTooLarge, "128"},
		"a long metadata value":     {raw(`{"__metadata__":{"a":"`+strings.Repeat("v", 3000)+`"}}`, 0), CodeTooLarge, "2048"},
		"too many tensors":          {raw(`{`+manyKeys(40, `{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`)+`}`, 0), CodeTooLarge, "too many"},
		"too many metadata keys":    {raw(`{"__metadata__":{`+manyKeys(70, `""`)+`}}`, 0), CodeTooLarge, "at most 64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(row.blob, DefaultLimits())
			wantRefusal(t, err, row.code, row.words)
			_, err = DecodeCores(row.blob, DefaultLimits())
			wantRefusal(t, err, row.code, row.words)
		})
	}
}

func manyKeys(n int, value string) string {
	var parts []string
	for i := range n {
		parts = append(parts, `"k`+string(rune('0'+i/10))+string(rune('0'+i%10))+`":`+value)
	}
	return strings.Join(parts, ",")
}

// badPage is a full page of that type, changed: a sound container that is no page.
type badPage struct {
	dtype       DType
	change      func(*forgery)
	code, words string
}

func refuses(t *testing.T, rows map[string]badPage) {
	t.Helper()
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			f := forge(t, encode(t, fullPage(row.dtype)))
			if row.code != CodeBadChecksum {
				delete(f.meta, checksumKey) // the fault itself is to be found, not the broken sum
			}
			row.change(f)
			_, err := Decode(f.bytes(), DefaultLimits())
			wantRefusal(t, err, row.code, row.words)
		})
	}
}

func TestDecodeRefusesBadMetadata(t *testing.T) {
	meta := func(key, value string) func(*forgery) { return func(f *forgery) { f.meta[key] = value } }
	refuses(t, map[string]badPage{
		"no format":                 {F16, func(f *forgery) { delete(f.meta, "format") }, CodeBadMetadata, `"format"`},
		"another format":            {F16, meta("format", "semproxy.page.v2"), CodeBadFormat, "semproxy.page.v2"},
		"cores for a page":          {F16, meta("format", FormatCores), CodeBadFormat, FormatPage},
		"no model":                  {F16, func(f *forgery) { delete(f.meta, "model") }, CodeBadMetadata, `"model"`},
		"an empty model":            {F16, meta("model", ""), CodeBadMetadata, `"model"`},
		"a model with a line break": {F16, meta("model", "a\nb"), CodeBadMetadata, `"model"`},
		"a long sequence":           {F16, meta("sequence", strings.Repeat("s", 300)), CodeBadMetadata, "256"},
		"no layout":                 {F16, func(f *forgery) { delete(f.meta, "layout") }, CodeBadMetadata, `"layout"`},
		"a layer that is no number": {F16, meta("layer_first", "four"), CodeBadMetadata, `"four"`},
		"a negative token":          {F16, meta("token_first", "-1"), CodeBadMetadata, `"-1"`},
		"a number of 2^31":          {F16, meta("tokens_total", "2147483648"), CodeBadMetadata, "2^31"},
		"fewer tokens than sent":    {F16, meta("tokens_total", "20"), CodeBadMetadata, "tokens_total"},
		"page 4 of 4":               {F16, meta("page", "4"), CodeBadMetadata, `"page"`},
		"no rope":                   {F16, func(f *forgery) { delete(f.meta, "rope") }, CodeBadMetadata, `"rope"`},
		"an unknown rope":           {F16, meta("rope", `{"type":"mrope","theta":1,"rotary_dim":4,"interleaved":false}`), CodeBadRope, `"mrope"`},
		"no dtype":                  {F16, func(f *forgery) { delete(f.meta, "dtype") }, CodeBadMetadata, `"dtype"`},
		"an unknown dtype":          {F16, meta("dtype", "F64"), CodeBadDType, `"F64"`},
		"a dtype that k has not":    {F16, meta("dtype", "BF16"), CodeBadDType, `"k"`},
		"a checksum that is no hex": {F16, meta("checksum", "zz"), CodeBadChecksum, `"zz"`},
	})
}

func TestDecodeRefusesBadTensors(t *testing.T) {
	put := func(name string, at int, bits ...byte) func(*forgery) {
		return func(f *forgery) { copy(f.tensor(name).data[at:], bits) }
	}
	refuses(t, map[string]badPage{
		"no k":                        {F16, func(f *forgery) { f.drop("k") }, CodeMissingTensor, `"k"`},
		"no v":                        {F16, func(f *forgery) { f.drop("v") }, CodeMissingTensor, `"v"`},
		"no token_ids":                {F16, func(f *forgery) { f.drop("token_ids") }, CodeMissingTensor, `"token_ids"`},
		"no positions":                {F16, func(f *forgery) { f.drop("positions") }, CodeMissingTensor, `"positions"`},
		"an unknown tensor":           {F16, func(f *forgery) { f.tensor("protect").name = "protekt" }, CodeUnknownTensor, `"protekt"`},
		"k of three dimensions":       {F16, func(f *forgery) { f.reshape("k", 4, 5, 4) }, CodeBadShape, "[4 5 4]"},
		"v of another shape":          {F16, func(f *forgery) { f.reshape("v", 2, 2, 4, 5) }, CodeBadShape, "[2 2 4 5]"},
		"v of another dtype":          {F16, func(f *forgery) { f.tensor("v").elem = BF16.element() }, CodeBadDType, `"v"`},
		"no token":                    {F16, func(f *forgery) { f.reshape("k", 2, 2, 0, 4) }, CodeEmpty, "no token"},
		"no layer":                    {F16, func(f *forgery) { f.reshape("k", 0, 2, 5, 4) }, CodeBadShape, "layers"},
		"no head":                     {F16, func(f *forgery) { f.reshape("k", 2, 0, 5, 4) }, CodeBadShape, "heads"},
		"no head dim":                 {F16, func(f *forgery) { f.reshape("k", 2, 2, 5, 0) }, CodeBadShape, "head_dim"},
		"token_ids too short":         {F16, func(f *forgery) { f.reshape("token_ids", 4) }, CodeBadShape, "[4], want [5]"},
		"token_ids in F32":            {F16, func(f *forgery) { f.tensor("token_ids").elem = elemF32 }, CodeBadDType, "I32 or I64"},
		"a negative token id":         {F16, put("token_ids", 4, 0xff, 0xff, 0xff, 0xff), CodeBadTokenIDs, "token 1: got -1"},
		"positions in F32":            {F16, func(f *forgery) { f.tensor("positions").elem = elemF32 }, CodeBadDType, `"positions"`},
		"positions of two dimensions": {F16, func(f *forgery) { f.reshape("positions", 1, 5) }, CodeBadShape, "[1 5]"},
		"positions that repeat":       {F16, put("positions", 4, 16), CodeBadPositions, "token 1: got 16"},
		"positions that go back":      {F16, put("positions", 8, 3), CodeBadPositions, "token 2: got 3"},
		"a negative position":         {F16, put("positions", 0, 0xff, 0xff, 0xff, 0xff), CodeBadPositions, "token 0: got -1"},
		"a boundary too short":        {F16, func(f *forgery) { f.reshape("boundary", 4) }, CodeBadShape, `"boundary"`},
		"a protect too long":          {F16, func(f *forgery) { f.reshape("protect", 6) }, CodeBadShape, `"protect"`},
		"a boundary of two bytes":     {F16, func(f *forgery) { f.tensor("boundary").elem = F16.element(); f.reshape("boundary", 5) }, CodeBadDType, "U8"},
		"NaN in k":                    {F16, put("k", 2*(40+20+2*4+1), 0x01, 0x7c), CodeNotFinite, "layer 1, head 1, token 2, dim 1"},
		"Inf in k":                    {F16, put("k", 0, 0x00, 0xfc), CodeNotFinite, "layer 0, head 0, token 0, dim 0"},
		"NaN in v":                    {BF16, put("v", 158, 0xc0, 0x7f), CodeNotFinite, `"v"`},
		"Inf in q":                    {F32, put("q", 4*(48+12), 0, 0, 0x80, 0xff), CodeNotFinite, "layer 1, head 1, query 0, dim 0"},
		"NaN in FP8 k":                {F8E4M3, put("k", 79, 0xff), CodeNotFinite, "layer 1, head 1, token 4, dim 3"},
		"Inf in FP8 v":                {F8E5M2, put("v", 3, 0x7c), CodeNotFinite, `"v"`},
		"FP8 without k_scale":         {F8E4M3, func(f *forgery) { f.drop("k_scale") }, CodeBadScale, `"k_scale"`},
		"FP8 without v_scale":         {F8E5M2, func(f *forgery) { f.drop("v_scale") }, CodeBadScale, `"v_scale"`},
		"scales beside F16": {F16, func(f *forgery) {
			f.tensors = append(f.tensors, tensor{name: "k_scale", elem: elemF32, shape: []int{2, 2}, data: scales(4)})
		}, CodeBadScale, "scales nothing"},
		"a scale of 0":              {F8E4M3, put("k_scale", 8, 0, 0, 0, 0), CodeBadScale, "layer 1, head 0"},
		"a negative scale":          {F8E4M3, put("v_scale", 3, 0xbf), CodeBadScale, `"v_scale"`},
		"a scale that is NaN":       {F8E4M3, put("k_scale", 0, 0, 0, 0xc0, 0x7f), CodeBadScale, "NaN"},
		"a scale that is Inf":       {F8E4M3, put("k_scale", 0, 0, 0, 0x80, 0x7f), CodeBadScale, "Inf"},
		"scales per layer":          {F8E4M3, func(f *forgery) { f.reshape("k_scale", 2) }, CodeBadShape, `"k_scale"`},
		"q of other heads":          {F16, func(f *forgery) { f.reshape("q", 2, 3, 4, 4) }, CodeBadShape, "a multiple of 2"},
		"q of another layer count":  {F16, func(f *forgery) { f.reshape("q", 1, 4, 3, 4) }, CodeBadShape, `"q"`},
		"q without a query":         {F16, func(f *forgery) { f.reshape("q", 2, 4, 0, 4) }, CodeBadShape, `"q"`},
		"q in FP8 beside F16":       {F16, func(f *forgery) { f.tensor("q").elem = F8E4M3.element(); f.reshape("q", 2, 4, 3, 4) }, CodeBadDType, `"q"`},
		"q in whole numbers":        {F32, func(f *forgery) { f.tensor("q").elem = elemI32 }, CodeBadDType, `"q"`},
		"a flipped bit in a tensor": {F16, put("k", 0, 0x55), CodeBadChecksum, "checksum"},
	})
}

func TestDecodeHoldsTheLimits(t *testing.T) {
	blob := encode(t, fullPage(F16))
	for name, row := range map[string]struct {
		lim   Limits
		words string
	}{
		"bytes":       {Limits{MaxBytes: int64(len(blob)) - 1}, "blob"},
		"header":      {Limits{MaxHeader: 100}, "header"},
		"tokens":      {Limits{MaxTokens: 4}, "rows"},
		"layers":      {Limits{MaxLayers: 1}, "layers"},
		"KV heads":    {Limits{MaxHeads: 1}, "heads"},
		"query heads": {Limits{MaxHeads: 3}, `"q"`},
		"head dim":    {Limits{MaxHeadDim: 3}, "head_dim"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(blob, row.lim)
			wantRefusal(t, err, CodeTooLarge, row.words)
		})
	}
	exact := Limits{MaxBytes: int64(len(blob)), MaxTokens: 5, MaxLayers: 2, MaxHeads: 4, MaxHeadDim: 4}
	if _, err := Decode(blob, exact); err != nil {
		t.Errorf("got %v at exactly the limits, want a page", err)
	}
}
