// Package image tests what `make image` writes, with readers that are not its own: go-containerregistry for layout and
// archive, debug/elf for the programs, and the kernel for what they answer.
package image
