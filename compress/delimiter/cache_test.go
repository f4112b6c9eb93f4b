package delimiter

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCacheGivesTheTableOfAFile(t *testing.T) {
	c := NewCache(0)
	for file, size := range map[string]int{"testdata/llama2.json": 12, "testdata/unigram.json": 7, "testdata/plain.json": 4} {
		table, err := c.Table(file)
		if err != nil {
			t.Fatalf("Table(%q): %v", file, err)
		}
		if got := table.Size(); got != size {
			t.Errorf("Table(%q).Size() = %d, want %d", file, got, size)
		}
	}
	if _, err := c.Table("testdata/nothing.json"); err == nil {
		t.Error("a file that is not there gave a table")
	}
}

func TestCacheLoadsAFileOnceForAllWhoAsk(t *testing.T) {
	c := NewCache(0)
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
	c := NewCache(0)
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
	c := NewCache(2)
	loads := map[string]int{}
	c.load = func(path string) (*Table, error) {
		loads[path]++
		return new(Table), nil
	}
	for _, file := range []string{"f0", "f1", "f0", "f2", "f0", "f1", "f3", "f4"} {
		if _, err := c.Table(file); err != nil {
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
