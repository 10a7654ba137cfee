package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// stage is to the demo what *testing.T is to a test: it says what goes wrong and
// cleans up afterwards. It satisfies netnstest.TB.
type stage struct {
	cleanups []func()
	steps    int
}

// failed is what Fatalf throws through the demo, up to play.
type failed struct{ message string }

// play runs the demo and cleans up, and tells whether all went well.
func (s *stage) play(show func()) (ok bool) {
	defer func() {
		problem := recover()
		for _, undo := range slices.Backward(s.cleanups) {
			undo()
		}
		f, expected := problem.(failed)
		switch {
		case expected:
			fmt.Fprintln(os.Stderr, "\ndemo: "+f.message)
		case problem != nil:
			panic(problem)
		}
		ok = problem == nil
	}()
	show()
	return true
}

func (s *stage) Helper()                    {}
func (s *stage) Logf(f string, args ...any) { say(f, args...) }
func (s *stage) Cleanup(undo func())        { s.cleanups = append(s.cleanups, undo) }

func (s *stage) Fatalf(f string, args ...any) {
	panic(failed{strings.TrimSpace(fmt.Sprintf(f, args...))})
}

// Skipf: a demo that shows nothing has failed.
func (s *stage) Skipf(f string, args ...any) { s.Fatalf(f, args...) }

func (s *stage) TempDir() string {
	dir, err := os.MkdirTemp("", "ip-masq-demo-")
	if err != nil {
		s.Fatalf("%v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// headline opens the next numbered step.
func (s *stage) headline(f string, args ...any) {
	s.steps++
	fmt.Printf("\n== %d. %s\n\n", s.steps, fmt.Sprintf(f, args...))
}

func say(f string, args ...any) {
	fmt.Println(strings.TrimRight("   "+fmt.Sprintf(f, args...), " "))
}

// quote shows a command and what it printed.
func quote(command, output string) {
	say("$ %s", command)
	for line := range strings.Lines(output) {
		say("%s", strings.TrimRight(line, "\n"))
	}
}
