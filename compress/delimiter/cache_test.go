package delimiter

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCacheTakesTheFirstPatternThatMatches(t *testing.T) {
	c := NewCache([]Source{
		{"meta-llama/*", "testdata/llama2.json"},
		{"t5-????", "testdata/unigram.json"},
		{"*", "testdata/plain.json"},
	}, 0)
	for model, size := range map[string]int{
		"meta-llama/Llama-2/7b": 12, // * crosses slashes
		"t5-base":               7,
		"t5-large":              4,
		"anything":              4,
		"":                      4,
	} {
		table, err := c.Table(model)
		if err != nil {
			t.Fatalf("Table(%q): %v", model, err)
		}
		if got := table.Size(); got != size {
			t.Errorf("Table(%q).Size() = %d, want %d", model, got, size)
		}
	}
}

func TestCacheRefusesAModelThatNoPatternNames(t *testing.T) {
	_, err := NewCache([]Source{{"llama*", "testdata/llama2.json"}}, 0).Table("qwen")
	checkCode(t, err, CodeUnknown)
}

func TestCacheLoadsAFileOnceForAllWhoAsk(t *testing.T) {
	c := NewCache([]Source{{"*", "f"}}, 0)
	var loads atomic.Int32
	release := make(chan struct{})
	c.load = func(string) (*Table, error) {
		loads.Add(1)
		<-release
		return new(Table), nil
	}
	const callers = 16
	var wg sync.WaitGroup
	tables := make([]*Table, callers)
	for i := range callers {
		wg.Go(func() { tables[i], _ = c.Table("m") })
	}
	close(release)
	wg.Wait()
	for _, table := range tables {
		if table == nil || table != tables[0] {
			t.Fatal("callers got different tables, want one")
		}
	}
	if got := loads.Load(); got != 1 {
		t.Errorf("got %d loads, want 1", got)
	}
}

func TestCacheRemembersAFailureForAWhile(t *testing.T) {
	c := NewCache([]Source{{"*", "f"}}, 0)
	now := time.Unix(0, 0)
	c.now = func() time.Time { return now }
	broken, loads := errors.New("broken"), 0
	c.load = func(string) (*Table, error) {
		loads++
		if loads == 1 {
			return nil, broken
		}
		return new(Table), nil
	}
	for range 3 {
		if _, err := c.Table("m"); !errors.Is(err, broken) {
			t.Fatalf("got %v, want %v", err, broken)
		}
	}
	if loads != 1 {
		t.Errorf("within the time: got %d loads, want 1", loads)
	}
	now = now.Add(DefaultRetry + time.Second)
	if _, err := c.Table("m"); err != nil || loads != 2 {
		t.Errorf("after it: got %v and %d loads, want no error and 2", err, loads)
	}
}

func TestCacheIsBoundedAndDropsTheLeastRecentlyUsed(t *testing.T) {
	var sources []Source
	for i := range 5 {
		sources = append(sources, Source{fmt.Sprintf("m%d", i), fmt.Sprintf("f%d", i)})
	}
	c := NewCache(sources, 2)
	loads := map[string]int{}
	c.load = func(path string) (*Table, error) {
		loads[path]++
		return new(Table), nil
	}
	for _, model := range []string{"m0", "m1", "m0", "m2", "m0", "m1", "m3", "m4"} {
		if _, err := c.Table(model); err != nil {
			t.Fatal(err)
		}
		if got := c.Len(); got > 2 {
			t.Fatalf("Len() = %d, want at most 2", got)
		}
	}
	if loads["f0"] != 1 || loads["f1"] != 2 {
		t.Errorf("got %v, want f0 kept (1 load) and f1 dropped (2 loads)", loads)
	}
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"a*c", "abcbc", true},
		{"a*b", "abc", false}, {"?", "", false}, {"a?c", "abc", true}, {"**", "x", true}, {"[ab]", "a", false}, {"[ab]", "[ab]", true},
		{"*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
	} {
		if got := glob(tt.pattern, tt.s); got != tt.want {
			t.Errorf("glob(%q, %q) = %v, want %v", tt.pattern, tt.s, got, tt.want)
		}
	}
}
