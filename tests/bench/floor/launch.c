// For scripts of supervisors in images without a shell: `#!/usr/bin/launch PROGRAM ARGUMENT...`.
// The kernel hands all that follows over as one word.
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char *words[32];
    int count = 0;
    for (char *word = strtok(argv[1], " "); word && count < 31; word = strtok(NULL, " ")) {
        words[count++] = word;
    }
    words[count] = NULL;
    execv(words[0], words);
    return 127;
}
