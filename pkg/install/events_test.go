package install

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// events watches a directory for everything but reading. The returned function ends that and lists what was seen.
func events(t testing.TB, dir string) func() string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	const mask = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE |
		unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		t.Fatal(err)
	}
	return func() string {
		defer func() { _ = unix.Close(fd) }()
		time.Sleep(20 * time.Millisecond)
		buffer := make([]byte, 1<<16)
		n, err := unix.Read(fd, buffer)
		if err != nil {
			return ""
		}
		return describe(buffer[:n])
	}
}

func describe(buffer []byte) string {
	var all []string
	for len(buffer) >= unix.SizeofInotifyEvent {
		mask, length := binary.NativeEndian.Uint32(buffer[4:]), binary.NativeEndian.Uint32(buffer[12:])
		name := strings.TrimRight(string(buffer[16:16+length]), "\x00")
		for bit, word := range map[uint32]string{
			unix.IN_MODIFY: "MODIFY", unix.IN_ATTRIB: "ATTRIB", unix.IN_CLOSE_WRITE: "CLOSE_WRITE", unix.IN_CREATE: "CREATE",
			unix.IN_DELETE: "DELETE", unix.IN_MOVED_FROM: "MOVED_FROM", unix.IN_MOVED_TO: "MOVED_TO",
		} {
			if mask&bit != 0 {
				all = append(all, word+" "+name)
			}
		}
		buffer = buffer[unix.SizeofInotifyEvent+length:]
	}
	return strings.Join(all, ", ")
}
