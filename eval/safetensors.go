package eval

import (
	"encoding/binary"
	"encoding/json"
	"math"
)

// Weights gives the tensors of a model by name. The data are read only and must stay valid while the model is used.
type Weights interface {
	Tensor(name string) (shape []int, dtype string, data []byte, ok bool)
}

// Safetensors is the [Weights] of one or more safetensors files.
type Safetensors map[string]stored

type stored struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
	data    []byte
}

// maxHeader is the format's own limit on the length of the header.
const maxHeader = 100 << 20

var elementSize = map[string]int64{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
	"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}

// Add indexes one file, which may be mapped memory: tensors alias it. Every length is compared with the file.
func (s Safetensors) Add(name string, blob []byte) error {
	if len(blob) < 8 {
		return badModel("%s: %d bytes are too few for a safetensors file", name, len(blob))
	}
	n := binary.LittleEndian.Uint64(blob)
	if n > maxHeader || n > uint64(len(blob)-8) {
		return badModel("%s: a header of %d bytes does not fit the file", name, n)
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(blob[8:8+n], &header); err != nil {
		return badModel("%s: header: %v", name, err)
	}
	body := blob[8+n:]
	for key, raw := range header {
		if key == "__metadata__" {
			continue
		}
		var t stored
		if err := json.Unmarshal(raw, &t); err != nil {
			return badModel("%s: tensor %q: %v", name, key, err)
		}
		size, ok := elementSize[t.DType]
		if !ok {
			return badModel("%s: tensor %q: element type %q is not known", name, key, t.DType)
		}
		for _, d := range t.Shape {
			if d < 0 || (d > 0 && size > math.MaxInt64/int64(d)) {
				return badModel("%s: tensor %q: shape %v is not usable", name, key, t.Shape)
			}
			size *= int64(d)
		}
		if t.Offsets[0] < 0 || t.Offsets[1] < t.Offsets[0] || t.Offsets[1] > int64(len(body)) || t.Offsets[1]-t.Offsets[0] != size {
			return badModel("%s: tensor %q: bytes %v do not hold %v of %s", name, key, t.Offsets, t.Shape, t.DType)
		}
		if _, twice := s[key]; twice {
			return badModel("%s: tensor %q is in two files", name, key)
		}
		t.data = body[t.Offsets[0]:t.Offsets[1]:t.Offsets[1]]
		s[key] = t
	}
	return nil
}

// Tensor implements [Weights].
func (s Safetensors) Tensor(name string) (shape []int, dtype string, data []byte, ok bool) {
	t, ok := s[name]
	return t.Shape, t.DType, t.data, ok
}

// Shards lists the files that a model.safetensors.index.json names, in order of first mention by tensor name.
func Shards(index []byte) ([]string, error) {
	var f struct {
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(index, &f); err != nil {
		return nil, badModel("model.safetensors.index.json: %v", err)
	}
	seen := map[string]bool{}
	for _, file := range f.Map {
		seen[file] = true
	}
	return sortedKeys(seen), nil
}
