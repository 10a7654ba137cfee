package attachment

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestReaderListsWhatStoreDoes: after every kind of change, by this process or another one, and also where the change keeps the
// record's name, size and time.
func TestReaderListsWhatStoreDoes(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "records")}
	r := Reader{Store: s}
	one, two := sample("one", "10.0.0.1"), sample("two", "10.0.0.2")
	moved := one
	moved.Addresses = sample("", "10.0.0.9").Addresses
	path := s.path(one.ID())
	at := time.Now().Add(-time.Hour)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"no directory", func() error { return nil }},
		{"a record", func() error { return s.Put(one) }},
		{"another", func() error { return s.Put(two) }},
		{"nothing", func() error { return nil }},
		{"one replaced, with its size and time", func() error {
			return errors.Join(os.Chtimes(path, at, at), s.Put(moved), os.Chtimes(path, at, at))
		}},
		{"one written over, with its size and time", func() error {
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(data), "10.0.0.9", "10.0.0.8", 1)), 0o600), os.Chtimes(path, at, at))
		}},
		{"one damaged", func() error { return os.WriteFile(path, []byte("{"), 0o600) }},
		{"still damaged", func() error { return nil }},
		{"one a directory", func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }},
		{"one gone", func() error { return os.Remove(path) }},
		{"one again", func() error { return s.Put(one) }},
		{"all gone", func() error { return os.RemoveAll(s.Dir) }},
		{"two again", func() error { return s.Put(two) }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		for range 2 {
			want, wantErr := s.List()
			got, err := r.List()
			if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) || (err == nil) != (wantErr == nil) || errors.Is(err, ErrUnreadable) != errors.Is(wantErr, ErrUnreadable) {
				t.Errorf("%s: %+v, %v; want %+v, %v", step.name, got, err, want, wantErr)
			}
		}
		time.Sleep(2 * RacyTime)
	}
	if len(r.known) != 1 {
		t.Errorf("%d records are remembered, want the one that is there", len(r.known))
	}
}

// TestReaderReadsOnlyChanges: of a hundred records one is new.
func TestReaderReadsOnlyChanges(t *testing.T) {
	r := Reader{Store: Store{Dir: t.TempDir()}}
	for i := range 100 {
		if err := r.Put(sample(strings.Repeat("c", i+1), "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(2 * RacyTime)
	list := func() map[ID]*reading {
		t.Helper()
		if all, err := r.List(); err != nil || len(all) < 100 {
			t.Fatalf("%d records, %v", len(all), err)
		}
		known := map[ID]*reading{}
		for id, reading := range r.known {
			known[id] = reading
		}
		return known
	}
	former := list()
	if err := r.Put(sample("new", "10.0.0.2")); err != nil {
		t.Fatal(err)
	}
	read := 0
	for id, now := range list() {
		if former[id] != now {
			read++
		}
	}
	if read != 1 {
		t.Errorf("%d records were read, want the new one", read)
	}
}
