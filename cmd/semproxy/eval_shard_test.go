package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// splitModel turns model.safetensors of a folder into two shards and an index, and removes it.
func splitModel(t *testing.T, dir string) {
	t.Helper()
	whole := filepath.Join(dir, "model.safetensors")
	blob, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	type entry struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	n := int(binary.LittleEndian.Uint64(blob))
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(blob[8:8+n], &raw); err != nil {
		t.Fatal(err)
	}
	headers, bodies, index := [2]map[string]entry{{}, {}}, [2][]byte{}, map[string]string{}
	for name, r := range raw {
		if name == "__metadata__" {
			continue
		}
		var e entry
		if err := json.Unmarshal(r, &e); err != nil {
			t.Fatal(err)
		}
		shard := len(index) % 2
		data := blob[8+n+e.Offsets[0] : 8+n+e.Offsets[1]]
		e.Offsets = [2]int{len(bodies[shard]), len(bodies[shard]) + len(data)}
		bodies[shard] = append(bodies[shard], data...)
		headers[shard][name] = e
		index[name] = shardName(shard)
	}
	for shard := range headers {
		header := encodeJSON(t, headers[shard])
		file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
		writeWhole(t, filepath.Join(dir, shardName(shard)), append(file, bodies[shard]...))
	}
	writeWhole(t, filepath.Join(dir, "model.safetensors.index.json"), encodeJSON(t, map[string]any{"weight_map": index}))
	if err := os.Remove(whole); err != nil {
		t.Fatal(err)
	}
}

func shardName(i int) string { return fmt.Sprintf("model-%05d-of-00002.safetensors", i+1) }

func encodeJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeWhole(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
