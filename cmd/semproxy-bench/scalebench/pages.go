package scalebench

import (
	"fmt"
	"io/fs"
	"strconv"
	"sync/atomic"

	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/transport/page"
)

// pages are copies of a real page, no two of which are the same.
type pages struct {
	whole *page.Page
	ids   []int32
	size  int // bytes of one
	made  atomic.Int64
}

// openPages takes the demo's shortest page.
func openPages() (*pages, error) {
	blob, err := fs.ReadFile(configs.Demo(), configs.Pages()[0]+".page.safetensors")
	if err != nil {
		return nil, err
	}
	whole, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		return nil, err
	}
	p := &pages{whole: whole, size: len(blob)}
	for i := range whole.Tokens {
		p.ids = append(p.ids, int32(whole.TokenIDs.At(i)))
	}
	return p, nil
}

// next appends another page to buf.
func (p *pages) next(buf []byte) ([]byte, error) {
	n := p.made.Add(1)
	ids := append([]int32(nil), p.ids...)
	ids[0] = int32(n)
	one := *p.whole
	one.Sequence, one.TokenIDs = "scale-"+strconv.FormatInt(n, 10), page.IntsOf(ids)
	blob, err := one.Append(buf)
	if err != nil {
		return nil, fmt.Errorf("page %d: %w", n, err)
	}
	return blob, nil
}
