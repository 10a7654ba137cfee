package install

import (
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// On file systems that are read-only or full nothing is half-done, and the sentence says which. The script runs in mounts of
// its own and prints what is there before and after.
func TestFileSystems(t *testing.T) {
	netnstest.Require(t, "unshare", "mount")
	for name, test := range map[string]struct{ script, words string }{
		"bin read-only":  {"mount -t tmpfs -o ro none $BIN", "read-only --cni-bin-dir"},
		"conf read-only": {"mount --bind $CONF $CONF && mount -o remount,bind,ro $CONF", "read-only --cni-conf-dir net.d"},
		"bin full":       {"mount -t tmpfs -o size=64k none $BIN", "space bin/ip-masq"},
		"conf full": {"list=$(cat $CONF/10-a.conflist); mount -t tmpfs -o size=8k none $CONF && echo \"$list\" >$CONF/10-a.conflist && " +
			"(dd if=/dev/zero of=$CONF/fill bs=1k count=64 2>/dev/null || true)", "space net.d"},
		"bin noexec": {"mount -t tmpfs -o noexec none $BIN", "VERSION permission"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.write("10-a.conflist", bridgeList)
			script := "set -e; BIN=" + h.bin + " CONF=" + h.conf + "; " + test.script + `; sum() { ls -A $BIN $CONF; cat $CONF/10-a.conflist; }
before=$(sum); set +e; "$@"; code=$?; [ "$before" = "$(sum)" ] || { echo half-done; sum; }; exit $code`
			r := execute(t, append([]string{"unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", installerBin(), "install"}, h.flags()...)...)
			if r.code != 1 || strings.Contains(r.stdout, "half-done") {
				t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
			}
			for word := range strings.FieldsSeq(test.words) {
				if !strings.Contains(r.stderr, word) {
					t.Errorf("the sentence has no %q: %s", word, r.stderr)
				}
			}
		})
	}
}
