package backend

import (
	"errors"
	"fmt"
	"strings"
)

// The classes of failure. Backends wrap them with what happened; callers ask with errors.Is.
var (
	// ErrUnavailable: this backend cannot work here, because a program, a kernel module or a match is missing.
	ErrUnavailable = errors.New("backend unavailable")
	// ErrIncomplete: the fast path found something of the node's state missing.
	ErrIncomplete = errors.New("node state incomplete")
	// ErrBusy: other software held a lock for too long; the same call may succeed later.
	ErrBusy = errors.New("busy")
)

// Part is a piece of the state that Verify can miss.
type Part string

// The parts, from the outside in.
const (
	PartRoot  Part = "root rule"
	PartChain Part = "chain"
	PartPod   Part = "pod rule"
)

// Missing is what Verify found to be absent.
type Missing struct {
	Part   Part
	Detail string
}

// Error names the missing part and where it should be.
func (m *Missing) Error() string { return fmt.Sprintf("%s missing: %s", m.Part, m.Detail) }

// Kept is what Remove could not take out, because rules of other software are in it or lead there. Those managed by ip-masq are gone from it.
type Kept struct {
	Place string
	Rules []string
}

// Error names the rules of other software.
func (k *Kept) Error() string {
	return fmt.Sprintf("%s stays because of rules of other software, delete them first: %s", k.Place, strings.Join(k.Rules, "; "))
}
