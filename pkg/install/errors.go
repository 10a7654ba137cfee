package install

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Exit statuses. 1 and 3 come with a sentence.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitNotNow  = 3
)

// errNotNow marks what somebody else has to do first: the network's owner, the runtime, or whoever started a watch. All else
// that goes wrong needs a person.
var errNotNow = errors.New("not possible now")

// errLost says that a file changed between reading and replacing it. The pass begins again.
var errLost = errors.New("it changed meanwhile")

func notNow(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errNotNow, fmt.Errorf(format, args...))
}

// exitCode is the one place where a failure gets its status.
func exitCode(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errNotNow):
		return exitNotNow
	}
	return exitFailure
}

// sentence is the error in one line, with the way out where the kernel's word for it does not tell.
func sentence(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ") + hint(err)
}

func hint(err error) string {
	switch {
	case errors.Is(err, unix.EROFS):
		return "; is it mounted read-only? The directories are flags: --cni-bin-dir, --cni-conf-dir"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "; free some space there, and run it again"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "; the installer needs to run as root, with SELinux letting it, and the plugin's directory must not be mounted noexec"
	}
	return ""
}
