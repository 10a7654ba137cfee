// Package version says which version a program is. It refuses to be set by hand: the Go toolchain stamps it, or the linker.
package version

import "runtime/debug"

// release is set by the linker: -X github.com/ip-masq/ip-masq-cni/pkg/version.release=v1.2.3.
var release string

// Release returns what the linker set, "devel" where it set nothing. It is for the plugin, in which reading what the toolchain
// stamped would cost a quarter of a percent of its size for a line that is printed when somebody starts it by hand.
func Release() string {
	if release == "" {
		return "devel"
	}
	return release
}

// String returns the release, the module's version, or the revision that the toolchain stamped; "devel" without any.
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return "devel-" + setting.Value[:12]
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return "devel"
}
