// Package version says which version a program is. It refuses to be set by hand: scripts/build stamps it, or the Go toolchain.
package version

import (
	"runtime/debug"

	"github.com/containernetworking/plugins/pkg/utils/buildversion"
)

// unstamped is what the variable of the CNI plugins' own packages holds where the linker did not set it. The plugin ip-masq
// prints that variable itself, so that it need not link what reads the toolchain's stamp.
const unstamped = "version unknown"

// String returns what scripts/build stamped; else the version that the Go toolchain knows, of the module (go install) or of the
// commit (go build in a checkout); else "devel".
func String() string {
	if v := buildversion.BuildVersion; v != unstamped {
		return v
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
