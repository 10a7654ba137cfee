package agent

import (
	"os"
	"syscall"
)

// inode returns the device, inode and change time of a file: a replaced file of the same size and time differs in them.
func inode(info os.FileInfo) [4]int64 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return [4]int64{}
	}
	return [4]int64{int64(stat.Dev), int64(stat.Ino), stat.Ctim.Sec, stat.Ctim.Nsec} //nolint:gosec,unconvert // identity only; widths differ by architecture
}
