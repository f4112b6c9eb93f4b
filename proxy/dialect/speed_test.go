package dialect_test

import (
	"strings"
	"testing"

	"github.com/semproxy/semproxy/proxy/dialect"
)

// BenchmarkRead: how fast bodies of different shapes are looked at.
func BenchmarkRead(b *testing.B) {
	const size = 1 << 20
	for name, body := range map[string]string{
		"text":     `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", size/5) + `"}]}`,
		"members":  `{"model":"m"` + strings.Repeat(`,"":0`, size/5) + `}`,
		"objects":  `{"model":"m"` + strings.Repeat(`,"a":{"b":{}}`, size/13) + `}`,
		"lists":    `{"model":"m","x":[1` + strings.Repeat(`,[]`, size/3) + `]}`,
		"tokens":   `{"model":"m","prompt":[1` + strings.Repeat(`,31999`, size/6) + `]}`,
		"messages": `{"model":"m","messages":[{}` + strings.Repeat(`,{"role":"user","content":"hello there"}`, size/40) + `]}`,
		"escapes":  `{"model":"m","prompt":"` + strings.Repeat(`\n`, size/2) + `"}`,
		"space":    `{"model":"m",` + strings.Repeat(" ", size) + `"a":1}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			text := []byte(body)
			for b.Loop() {
				q := dialect.NewReader(chat, int64(len(text)))
				for rest := text; len(rest) > 0; rest = rest[min(16<<10, len(rest)):] {
					if _, err := q.Write(rest[:min(16<<10, len(rest))]); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
