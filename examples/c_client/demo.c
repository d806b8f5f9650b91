/* A library to load. Its data lies in many places (Makefile), each with a program header of its own: more than the
 * linker gets with its first read (832 bytes), so it reads them by pread64, which becomes lseek and read. */
#define PLACE(number) __attribute__((section(".place" #number), used)) static int place##number = number
PLACE(1);
PLACE(2);
PLACE(3);
PLACE(4);
PLACE(5);
PLACE(6);
PLACE(7);
PLACE(8);

int part(void); /* of libpart.so, which lies in the last folder of the RUNPATH */

int answer(void) {
  return part() + place1 - place2 + place3 - place4 - place5 + place6 - place7 + place8 + 2;
}
