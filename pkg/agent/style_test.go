package agent

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pair of a terminal and of who looks at it.
func terminal(t *testing.T) *os.File {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("no terminals here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outside.Close() })
	number, err := unix.IoctlGetInt(int(outside.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(outside.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	inside, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inside.Close() })
	return inside
}

// TestColors are on terminals only, and not where NO_COLOR is set or the terminal has none.
func TestColors(t *testing.T) {
	screen := Program{Stdout: terminal(t)}
	for _, c := range []struct {
		p             Program
		noColor, term string
		want          bool
	}{
		{screen, "", "xterm", true},
		{screen, "1", "xterm", false},
		{screen, "", "dumb", false},
		{Program{Stdout: &strings.Builder{}}, "", "xterm", false},
	} {
		t.Setenv("NO_COLOR", c.noColor)
		t.Setenv("TERM", c.term)
		if got := c.p.style().Colors; got != c.want {
			t.Errorf("NO_COLOR=%s TERM=%s: %t, want %t", c.noColor, c.term, got, c.want)
		}
	}
}
